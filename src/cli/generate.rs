//! `billstream generate`: made-up invoices, the same for the same seed on any machine.

use std::io::Write;

use billstream::model::Timestamp;
use clap::Args;

use super::failure::{enough, Failure, Result};
use super::output::stdout;
use super::values;

/// Prints made-up invoices as a csv that import reads
///
/// The rows depend on the seed alone: the same on any machine, and a longer file begins with the
/// rows of a shorter one. Customers are few large and many small, one amount in 64 is zero, the times are
/// of 2020 to 2024, and memos have commas, quotes and letters beyond ASCII.
#[derive(Args)]
pub struct Generate {
    /// How many invoices
    #[arg(long, value_name = "N")]
    rows: u64,
    /// Which ones
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Generate) -> Result<()> {
    let mut out = stdout();
    let written = write(&mut out, args.rows, args.seed).and_then(|()| out.flush());
    enough(written.map_err(Failure::stdout))
}

fn write(out: &mut impl Write, rows: u64, seed: u64) -> std::io::Result<()> {
    out.write_all(b"invoice_id,customer_id,total_amount_cents,currency,issued_at,memo\n")?;
    let mut random = SplitMix64(seed);
    let mut issued_at = String::new();
    for row in 1..=rows {
        let customer = random.skewed(CUSTOMER_BITS);
        let cents = if random.below(64) == 0 { 0 } else { random.skewed(AMOUNT_BITS) };
        let currency = CURRENCIES[random.below(CURRENCIES.len() as u64) as usize];
        issued_at.clear();
        values::write_time(&mut issued_at, time(&mut random));
        write!(out, "inv-{row:07},cust-{customer:05},{cents},{currency},{issued_at},")?;
        write_memo(out, &mut random)?;
    }
    Ok(())
}

/// Customers are numbered below 2 to this power.
const CUSTOMER_BITS: u64 = 15;
/// Amounts are below 2 to this power cents.
const AMOUNT_BITS: u64 = 20;
/// Each as often as it is here.
const CURRENCIES: [&str; 16] = [
    "USD", "USD", "USD", "USD", "USD", "USD", "USD", "USD", "EUR", "EUR", "EUR", "EUR", "GBP",
    "GBP", "CHF", "SEK",
];

/// 2020-01-01T00:00:00Z, and the seconds from there to 2025-01-01T00:00:00Z.
const FIRST_SECOND: i64 = 1_577_836_800;
const SECONDS: u64 = 157_852_800;

/// Mostly whole seconds, as billing systems have them; some with milli- or nanoseconds.
fn time(random: &mut SplitMix64) -> Timestamp {
    let seconds = FIRST_SECOND + random.below(SECONDS) as i64;
    let nanos = match random.below(32) {
        0 => random.below(1_000_000_000),
        1 | 2 => random.below(1_000) * 1_000_000,
        _ => 0,
    };
    Timestamp { seconds, nanos: nanos as i32 }
}

/// Ends the row with one of a dozen kinds of memo; some need quotes in a csv.
fn write_memo(out: &mut impl Write, random: &mut SplitMix64) -> std::io::Result<()> {
    let number = random.below(100_000);
    let few = 2 + number % 9;
    match random.below(12) {
        0 | 1 => writeln!(out),
        2..=4 => writeln!(out, "Order {number:05}"),
        5 => writeln!(out, "{few} licences"),
        6 => writeln!(out, "\"Hosting, {few} months\""),
        7 => writeln!(out, "\"The \"\"gold\"\" plan\""),
        8 => writeln!(out, "Beratung für Büro Zürich"),
        9 => writeln!(out, "{few} × 東京 → 大阪"),
        10 => writeln!(out, "\"Parts {number:05}, {few} boxes, \"\"fragile\"\", déjà payé\""),
        _ => {
            let words = ["consulting", "support", "travel", "training"];
            write!(out, "Period {few}:")?;
            (0..number % 24).try_for_each(|i| write!(out, " {}", words[(i % 4) as usize]))?;
            writeln!(out)
        }
    }
}

/// The generator of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators"
/// (OOPSLA 2014), with the constants of Sebastiano Vigna's public domain splitmix64.c. Ours, and
/// not a crate's, because the files must stay the same whatever a crate's next release does.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `bound - 1`. The bias of the multiplication is far below what anyone can see here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 1 to below 2 to the power of `bits`, each power of two as likely as the next: n comes
    /// about 1/n as often as 1, which is how customers and amounts are spread in life.
    fn skewed(&mut self, bits: u64) -> u64 {
        let magnitude = 1 << self.below(bits);
        magnitude + self.below(magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(rows: u64, seed: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, rows, seed).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first numbers of splitmix64.c from seed 1234567, as its ports are commonly tested.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn a_longer_file_begins_with_a_shorter_one() {
        assert!(generated(1000, 7).starts_with(&generated(10, 7)));
        assert_ne!(generated(10, 7), generated(10, 8));
    }

    #[test]
    fn every_row_is_sound_csv() {
        let text = generated(5000, 1);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 5000);
        assert!(rows.iter().all(|row| row.len() == 6));
        let with = |what: &str| rows.iter().filter(|row| row[5].contains(what)).count();
        for what in ["\"", ",", "東京", "ü"] {
            assert!(with(what) > 100, "{what}");
        }
        let zeros = rows.iter().filter(|row| &row[2] == "0").count();
        assert!((40..160).contains(&zeros), "{zeros} zeros");
    }
}
