//! The statements of `sql/`, by the names of their files.

use std::sync::LazyLock;

/// Takes the comment at the top of a statement off, so that the statement cache hashes less.
const fn statement(file: &'static str) -> &'static str {
    let bytes = file.as_bytes();
    let mut start = 0;
    while start + 1 < bytes.len() && bytes[start] == b'-' && bytes[start + 1] == b'-' {
        while bytes[start] != b'\n' {
            start += 1;
        }
        start += 1;
    }
    file.split_at(start).1
}

/// Names each statement, and lists them all for the test that prepares every one.
macro_rules! statements {
    ($($name:ident = $file:literal;)+) => {
        $(pub const $name: &str = statement(include_str!(concat!("../../../sql/queries/", $file, ".sql")));)+

        /// Each file's name, with its whole text.
        #[cfg(test)]
        pub const FILES: &[(&str, &str)] =
            &[$(($file, include_str!(concat!("../../../sql/queries/", $file, ".sql")))),+];
    };
}

statements! {
    ADD_CUSTOMER_TOTAL = "add_customer_total";
    CHECK_CUSTOMER_TOTALS = "check_customer_totals";
    CHECK_CUSTOMER_TOTALS_UNTIL_2 = "check_customer_totals_until_2";
    CHECK_EVENTS = "check_events";
    CHECK_INVOICES = "check_invoices";
    CHECK_LAST_EVENT = "check_last_event";
    CHECK_NEWEST_EVENTS = "check_newest_events";
    CHECK_STATUSES = "check_statuses";
    CHECK_TOTALS = "check_totals";
    CHECK_TOTALS_UNTIL_2 = "check_totals_until_2";
    CREATED_TOTALS = "created_totals";
    EVENTS_AFTER = "events_after";
    EVENTS_OF_INVOICE = "events_of_invoice";
    FILE_STATE = "file_state";
    FIND_BULK_COMMIT = "find_bulk_commit";
    FIND_CURRENCY_TOTAL = "find_currency_total";
    FIND_EVENTS = "find_events";
    FIND_INVOICES = "find_invoices";
    INSERT_BULK_COMMIT = "insert_bulk_commit";
    INSERT_EVENT = "insert_event";
    INSERT_INVOICE = "insert_invoice";
    INVOICE = "invoice";
    INVOICES_AFTER = "invoices_after";
    INVOICES_AFTER_BY_CUSTOMER = "invoices_after_by_customer";
    INVOICES_AFTER_FILTERED = "invoices_after_filtered";
    LAST_EVENT_SEQUENCE = "last_event_sequence";
    LAST_SEQUENCE = "last_sequence";
    PAY_CUSTOMER = "pay_customer";
    PAY_INVOICE = "pay_invoice";
    RENEW_FILE_STATE = "renew_file_state";
    SET_CURRENCY_TOTAL = "set_currency_total";
    SET_LAST_EVENT_SEQUENCE = "set_last_event_sequence";
    SET_LAST_SEQUENCE = "set_last_sequence";
    SUMMARY = "summary";
    SUMMARY_BY_CUSTOMER = "summary_by_customer";
    SUMMARY_BY_CUSTOMER_AND_DATE = "summary_by_customer_and_date";
    SUMMARY_BY_DATE = "summary_by_date";
}

/// The rows of [`INSERT_EVENTS`]: more gain little.
pub const EVENTS_AT_ONCE: usize = 16;

/// [`INSERT_EVENT`] with several rows: to begin and to end a statement takes as long as half a row.
pub static INSERT_EVENTS: LazyLock<String> = LazyLock::new(|| {
    let (_, row) = INSERT_EVENT.trim_end().split_once("VALUES ").unwrap_or_default();
    format!("{}{}", INSERT_EVENT.trim_end(), format!(", {row}").repeat(EVENTS_AT_ONCE - 1))
});

/// The scripts that bring a database from each version to the next; the first makes version 1.
pub const MIGRATIONS: &[&str] = &[
    include_str!("../../../sql/migrations/0001_initial.sql"),
    include_str!("../../../sql/migrations/0002_what_was_given_once.sql"),
    include_str!("../../../sql/migrations/0003_books.sql"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(conn: &rusqlite::Connection, text: &str) -> String {
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
        // Raw, because the parameters of the statement are not bound.
        let mut rows = explain.raw_query();
        let mut plan = String::new();
        while let Some(row) = rows.next().unwrap() {
            plan += &(row.get::<_, String>("detail").unwrap() + "\n");
        }
        plan
    }

    fn documented<'a>(text: &'a str, what: &str) -> Option<&'a str> {
        text.lines().find_map(|line| line.strip_prefix("-- ")?.strip_prefix(what))
    }

    #[test]
    fn every_statement_prepares_and_uses_the_index_it_names() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        crate::store::sqlite::push::add_push_functions(&conn).unwrap();
        rusqlite::vtab::array::load_module(&conn).unwrap();
        MIGRATIONS.iter().for_each(|script| conn.execute_batch(script).unwrap());
        for (name, text) in FILES {
            assert!(documented(text, "Purpose: ").is_some(), "{name}: no purpose");
            assert!(documented(text, "Parameters: ").is_some(), "{name}: no parameters");
            let plan = plan(&conn, text);
            let reads =
                statement(text).starts_with("SELECT") || statement(text).starts_with("UPDATE");
            match documented(text, "Index: ") {
                Some(index) => assert!(plan.contains(index), "{name}: {index:?} is not in\n{plan}"),
                None => assert!(!reads, "{name}: reads, and names no index"),
            }
            if !name.starts_with("check_") {
                assert!(!plan.contains("TEMP B-TREE"), "{name} sorts:\n{plan}");
                for table in ["SCAN invoices", "SCAN reconcile_events"] {
                    assert!(!plan.contains(table), "{name} reads the table:\n{plan}");
                }
            }
        }
    }

    #[test]
    fn every_file_is_listed() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/queries");
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let listed: Vec<_> = FILES.iter().map(|(name, _)| format!("{name}.sql")).collect();
        assert_eq!(files, listed);
    }

    #[test]
    fn the_comment_is_taken_off_and_nothing_else() {
        assert_eq!(statement("-- a\n--   b\nSELECT 1 -- c\n"), "SELECT 1 -- c\n");
        assert_eq!(statement("SELECT 1"), "SELECT 1");
    }
}
