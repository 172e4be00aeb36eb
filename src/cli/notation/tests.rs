//! Times in the forms of files, against what the zones did; and the table of docs/files.md.

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::cli::values;

fn notation(format: &str, zone: &str) -> std::result::Result<TimeNotation, String> {
    let given = |text: &'static str| (!text.is_empty()).then_some(text);
    let (format, zone) = (format.to_owned().leak(), zone.to_owned().leak());
    TimeNotation::new(given(format), given(zone))
}

/// What `text` is in UTC, or why it is none.
fn read(format: &str, zone: &str, text: &str) -> std::result::Result<String, String> {
    let time = notation(format, zone).unwrap().parse(text)?;
    let mut out = String::new();
    let (seconds, nanos) = (time.seconds, time.nanos);
    values::write_time(&mut out, billstream::model::Timestamp { seconds, nanos });
    Ok(out)
}

#[track_caller]
fn assert_read(format: &str, zone: &str, text: &str, utc: &str) {
    assert_eq!(read(format, zone, text), Ok(utc.to_owned()), "{text}");
}

#[track_caller]
fn assert_refused(format: &str, zone: &str, text: &str, why: &str) {
    let refusal = read(format, zone, text).expect_err(text);
    assert!(refusal.contains(why), "{text}: {refusal}");
}

#[test]
fn iso_8601_is_read_in_a_zone() {
    let berlin = |text, utc| assert_read("", "Europe/Berlin", text, utc);
    berlin("2010-12-01 08:26:00", "2010-12-01T07:26:00Z");
    berlin("2010-12-01T08:26", "2010-12-01T07:26:00Z");
    berlin("2010-07-01t08:26:00.25", "2010-07-01T06:26:00.25Z");
    berlin("2010-07-01", "2010-06-30T22:00:00Z");
    berlin("0001-01-02", "0001-01-01T23:06:32Z");
    berlin("9999-12-31 23:59:59.999999999", "9999-12-31T22:59:59.999999999Z");
    berlin("9999-12-31", "9999-12-30T23:00:00Z");
    // An offset counts more.
    berlin("2010-12-01 08:26:00Z", "2010-12-01T08:26:00Z");
    berlin("2010-12-01T08:26:00-05:00", "2010-12-01T13:26:00Z");
    assert_read("", "europe/berlin", "2010-12-01", "2010-11-30T23:00:00Z");
    assert_read("", "UTC", "2010-12-01", "2010-12-01T00:00:00Z");
    for (text, why) in [
        ("2010-13-01", "there is no such day or time of day"),
        ("2010-12-01 24:00", "there is no such day or time of day"),
        ("2016-12-31 23:59:60", "a leap second cannot be kept"),
        ("2010-12-01 08:26:00.1234567890", "a second has nine decimals at most"),
        ("0001-01-01", "in UTC its year is not in 0001 to 9999"),
        ("2010-12-1", "--time-format tells of other forms"),
        ("2010-12-01 8:26", "--time-format tells of other forms"),
        ("2010-12-01 08:26 ", "--time-format tells of other forms"),
        ("2010-12-01T08", "--time-format tells of other forms"),
        ("", "--time-format tells of other forms"),
        ("40513", "a spreadsheet counts days so"),
        ("40513.351388889", "a spreadsheet counts days so"),
    ] {
        assert_refused("", "Europe/Berlin", text, why);
        assert_refused("", "Europe/Berlin", text, "a time such as 1997-01-01T00:00:00Z, or ");
    }
    assert_refused("", "", "2010-12-01", "--timezone tells where");
    assert_refused("", "", "1997-01-01T00:00:00+25:00", "Z (its offset ends at 23:59)");
    assert_refused("", "", "40513", "an RFC 3339 time such as 1997-01-01T00:00:00Z (a spreadsheet");
}

#[test]
fn where_clocks_change_nothing_is_guessed() {
    for (zone, never, before, after) in [
        ("Europe/Berlin", "2010-03-28 02:00", "2010-03-28 01:59:59.999999999", "2010-03-28 03:00"),
        ("America/New_York", "2024-03-10 02:30", "2024-03-10 01:59", "2024-03-10 03:00"),
        ("Australia/Lord_Howe", "2010-10-03 02:29", "2010-10-03 01:59", "2010-10-03 02:30"),
        ("Pacific/Apia", "2011-12-30 12:00", "2011-12-29 23:59", "2011-12-31 00:00"),
    ] {
        assert_refused("", zone, never, &format!("{zone} never had it"));
        assert!(read("", zone, before).is_ok() && read("", zone, after).is_ok(), "{zone}");
    }
    for (zone, twice, before, after) in [
        ("Europe/Berlin", "2010-10-31 02:00", "2010-10-31 01:59", "2010-10-31 03:00"),
        ("America/New_York", "2024-11-03 01:59:59.9", "2024-11-03 00:59", "2024-11-03 02:00"),
        ("America/Havana", "2010-10-31 00:30", "2010-10-30 23:59", "2010-10-31 01:00"),
    ] {
        assert_refused("", zone, twice, &format!("{zone} had it twice"));
        assert!(read("", zone, before).is_ok() && read("", zone, after).is_ok(), "{zone}");
    }
    let both = "2010-10-31T02:30:00+02:00 and 2010-10-31T02:30:00+01:00";
    assert_refused("%d.%m.%Y %H:%M", "Europe/Berlin", "31.10.2010 02:30", both);
}

#[test]
fn a_date_is_the_first_moment_of_its_day() {
    for (zone, date, utc) in [
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"),
        ("America/Sao_Paulo", "2018-11-05", "2018-11-05T02:00:00Z"),
        // Midnight came twice.
        ("America/Havana", "2010-10-31", "2010-10-31T04:00:00Z"),
        // The clocks went from half past eleven to half past midnight.
        ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00Z"),
    ] {
        assert_read("", zone, date, utc);
        let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { panic!() };
        assert_read("%d.%m.%Y", zone, &format!("{day}.{month}.{year}"), utc);
    }
    assert_refused("", "Pacific/Apia", "2011-12-30", "never had that day");
}

#[test]
fn a_format_says_what_times_look_like() {
    let berlin = |format, text, utc| assert_read(format, "Europe/Berlin", text, utc);
    berlin("%d.%m.%Y", "31.12.2010", "2010-12-30T23:00:00Z");
    berlin("%d.%m.%Y", "1.2.2010", "2010-01-31T23:00:00Z");
    berlin("%m/%d/%Y %I:%M %p", "12/1/2010 8:26 am", "2010-12-01T07:26:00Z");
    berlin("%m/%d/%Y %H:%M:%S", "12/1/2010 20:26:59", "2010-12-01T19:26:59Z");
    berlin("%Y%m%d", "20101201", "2010-11-30T23:00:00Z");
    berlin("%d-%b-%y", "01-Dec-10", "2010-11-30T23:00:00Z");
    berlin("%d.%m.%y", "01.01.69", "1968-12-31T23:00:00Z");
    berlin("%d.%m.%y", "01.01.68", "2067-12-31T23:00:00Z");
    berlin("%A, %d. %B %Y", "Wednesday, 1. December 2010", "2010-11-30T23:00:00Z");
    berlin("%Y-%m-%dT%H:%M:%S%.f", "2010-12-01T08:26:00.5", "2010-12-01T07:26:00.5Z");
    berlin("%Y-%m-%d %H:%M:%S%z", "2010-12-01 08:26:00+0500", "2010-12-01T03:26:00Z");
    berlin("%d.%m.%Y %H:%M:%S", "01.01.1960 00:59:59", "1959-12-31T23:59:59Z");
    assert_read("%Y-%m-%d %H:%M:%S%:z", "", "2010-12-01 08:26:00+05:30", "2010-12-01T02:56:00Z");
    assert_read("%s", "", "1291191960", "2010-12-01T08:26:00Z");
    for (format, text, why) in [
        ("%d.%m.%Y", "31.11.2010", "31.12.2010 (there is no such day or time of day)"),
        ("%d.%m.%Y", "12/31/2010", "a time such as 31.12.2010"),
        ("%d.%m.%Y", "2010-12-31", "a time such as 31.12.2010"),
        ("%d.%m.%Y", "31.12.2010 08:26", "a time such as 31.12.2010"),
        ("%d.%m.%Y", "", "a time such as 31.12.2010"),
        ("%d.%m.%Y", "40513", "31.12.2010 (a spreadsheet counts days so"),
        ("%d.%m.%Y", "31.12.10", "a year has four digits, or two where %y is in place of %Y"),
        ("%d.%m.%Y", "31.12.210", "a year has four digits"),
        ("%d.%m.%Y", "01.01.0001", "in UTC its year is not in 0001 to 9999"),
        ("%d.%m.%Y %H:%M", "31.12.2010 25:00", "a time such as 31.12.2010 13:59"),
        ("%d.%m.%Y %H:%M:%S", "31.12.2016 23:59:60", "a leap second cannot be kept"),
        ("%d.%m.%Y %H:%M:%S", "31.12.1960 23:59:60", "a leap second cannot be kept"),
        ("%A %d.%m.%Y", "Monday 31.12.2010", "there is no such day or time of day"),
    ] {
        assert_refused(format, "Europe/Berlin", text, why);
    }
}

#[test]
fn options_that_would_leave_a_guess_are_refused() {
    for (format, zone, message) in [
        (
            "",
            "Europe/Berln",
            "--timezone \"Europe/Berln\": there is no such time zone; is it Europe/Berlin?",
        ),
        ("", "+01:00", "--timezone \"+01:00\": there is no such time zone"),
        ("%d.%m.%Y", "", "--time-format \"%d.%m.%Y\": it has no offset (%z); --timezone tells"),
        ("%d.%m", "UTC", "--time-format \"%d.%m\": "),
        ("%H:%M", "UTC", "--time-format \"%H:%M\": "),
        ("dd.mm.yyyy", "UTC", "--time-format \"dd.mm.yyyy\": "),
        ("%", "UTC", "--time-format \"%\": "),
        ("%d.%m.%Y %!", "UTC", "--time-format \"%d.%m.%Y %!\": "),
        ("%d.%m.%Y %I:%M", "UTC", "--time-format \"%d.%m.%Y %I:%M\": "),
        ("%d.%m.%Y %M", "UTC", "--time-format \"%d.%m.%Y %M\": "),
        ("%Y-%m-%d %H:%M %Q", "Europe/Berlin", "--time-format \"%Y-%m-%d %H:%M %Q\": "),
        ("%Y-%m-%d %H:%M %Z", "Europe/Berlin", "--time-format \"%Y-%m-%d %H:%M %Z\": "),
    ] {
        let refusal = notation(format, zone).unwrap_err();
        println!("{refusal}");
        assert!(refusal.starts_with(message), "{refusal}");
    }
    // They can be written.
    for format in ["%d.%m.%Y", "%B %Y", "%Y-%m-%d %H:%M %Z", "%H:%M"] {
        assert!(TimeNotation::writing(Some(format), None).is_ok(), "{format}");
    }
}

#[test]
fn a_time_is_written_as_it_is_asked_for() {
    let write = |format: Option<&str>, zone: Option<&str>, seconds, nanos| {
        let mut out = String::from("x");
        let time = billstream::model::Timestamp { seconds, nanos };
        TimeNotation::writing(format, zone).unwrap().write(&mut out, time).map(|()| out)
    };
    let berlin = Some("Europe/Berlin");
    for (format, zone, nanos, expected) in [
        (None, None, 0, "x2010-12-01T23:26:00Z"),
        (None, berlin, 0, "x2010-12-02T00:26:00+01:00"),
        (None, berlin, 250_000_000, "x2010-12-02T00:26:00.25+01:00"),
        (Some("%d.%m.%Y"), None, 0, "x01.12.2010"),
        (Some("%d.%m.%Y"), berlin, 0, "x02.12.2010"),
        (Some("%d.%m.%Y %H:%M %Z"), berlin, 0, "x02.12.2010 00:26 CET"),
    ] {
        assert_eq!(write(format, zone, 1_291_245_960, nanos).unwrap(), expected);
    }
    assert_eq!(write(None, None, 253_402_300_799, 0).unwrap(), "x9999-12-31T23:59:59Z");
    assert!(write(None, berlin, 253_402_300_799, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_it_was(
        seconds in -62_135_596_800..=253_402_207_200i64, nanos in 0..1_000_000_000,
        format in prop::option::of(prop::sample::select(vec!["%Y-%m-%d %H:%M:%S%.f%z", "%d.%m.%Y %I:%M:%S%.9f %p %:z"])),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"]),
    ) {
        // Before the zones had offsets in whole minutes.
        let seconds = if zone == "UTC" { seconds } else { seconds.max(0) };
        let mut text = String::new();
        let time = billstream::model::Timestamp { seconds, nanos };
        TimeNotation::writing(format, Some(zone)).unwrap().write(&mut text, time).unwrap();
        let read = TimeNotation::new(format, Some(zone)).unwrap().parse(&text);
        let read = read.map(|it| (it.seconds, it.nanos));
        prop_assert_eq!(read, Ok((seconds, nanos)), "{}", text);
    }

    #[test]
    fn no_text_is_too_much(
        text in prop_oneof!["\\PC{0,20}", "[0-9]{1,4}[-./ :T][0-9]{1,2}[-./ :T][0-9]{1,4}([ T][0-9:.]{0,12})?"],
        format in prop::option::of(prop::sample::select(vec!["%d.%m.%Y", "%s", "%D", "%G-W%V-%u", "%Y-%j %H"])),
    ) {
        let read = TimeNotation::new(format, Some("Europe/Berlin")).unwrap().parse(&text);
        let is_in_range = |seconds| (-62_135_596_800..=253_402_300_799).contains(&seconds);
        prop_assert!(read.map_or(true, |time| is_in_range(time.seconds)));
    }
}

/// Of the machine or not: the program has them too.
#[test]
fn the_time_zones_are_in_the_program() {
    assert!(jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").is_ok());
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    notation: Notation,
}

#[test]
fn the_table_of_the_documentation_is_true() {
    let page = include_str!("../../../docs/files.md");
    let table = page.split("| options | in the file |").nth(1).unwrap();
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    for row in &rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let [options, text, expected] = cells[..] else { panic!("{row}") };
        // Only a format is quoted, and it may have spaces.
        let options = options.trim().trim_matches('`').replace("' --", "'\n--");
        let words = options.split('\n').flat_map(|option| match option.contains('\'') {
            true => option.splitn(2, ' ').collect::<Vec<_>>(),
            false => option.split(' ').filter(|word| !word.is_empty()).collect(),
        });
        let words = ["billstream"].into_iter().chain(words).map(|word| word.trim_matches('\''));
        let notation = Command::try_parse_from(words).unwrap().notation.times().unwrap();
        let text = text.split('`').nth(1).unwrap();
        let read = notation.parse(text);
        match expected.trim().strip_prefix("refused: ") {
            Some(why) => assert!(read.clone().unwrap_err().contains(why), "{row}: {read:?}"),
            None => assert_eq!(read, values::time(expected.trim()), "{row}"),
        }
    }
    assert!(rows.len() > 15);
}

#[test]
fn the_options_of_amounts_are_taken_as_they_are_written() {
    let notation = |arguments: &[&str]| {
        let words = ["billstream"].iter().chain(arguments);
        Command::try_parse_from(words).unwrap().notation.amounts()
    };
    let german = notation(&["--decimal", ",", "--thousands", "."]).unwrap();
    assert_eq!(german.parse("-1.234,50", "EUR"), Ok(-123_450));
    assert!(notation(&[]).unwrap().is_minor());
    assert!(matches!(notation(&["--thousands", "."]), Err(Failure::Usage(_))));
    assert!(Command::try_parse_from(["billstream", "--decimal", "comma"]).is_err());
}
