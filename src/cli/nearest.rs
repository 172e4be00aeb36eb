//! What a mistyped name was meant to be.

/// The name of `known` that is the least letters away from `name`, whatever their case.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> &'a str {
    let name = name.to_lowercase();
    let distance = |known: &&str| strsim::damerau_levenshtein(&name, &known.to_lowercase());
    known.into_iter().min_by_key(distance).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_like_one_that_is_known() {
        let known = ["addr", "db", "listen", "max_exports", "max_uploads", "park_after_ms"];
        for (name, expected) in [
            ("adr", "addr"),
            ("addrr", "addr"),
            ("max_export", "max_exports"),
            ("max_exprots", "max_exports"),
            ("Max_Uploads", "max_uploads"),
            ("LISTN", "listen"),
            ("park_after", "park_after_ms"),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
