//! Files as the programs that write them have them: read as options say, and without a guess.

use std::path::Path;

use rusqlite::Connection;

use super::support::*;

/// What a mapping file is tried with: a German spreadsheet.
const GERMAN: &str = "\
delimiter = ';'
encoding = 'windows-1252'
decimal = ','
thousands = '.'
time_format = '%d.%m.%Y'
timezone = 'Europe/Berlin'
lowercase_currencies = true
ignore_columns = ['Straße']

[map]
invoice_id = 'Rechnung Nr.'
customer_id = 'Käufer'
issued_at = 'Datum'
total_amount_cents = 'Betrag'
currency = 'Währung'
memo = 'Text'
";

fn windows_1252(text: &str) -> Vec<u8> {
    encoding_rs::WINDOWS_1252.encode(text).0.into_owned()
}

fn utf_16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn write(server: &Server, name: &str, bytes: &[u8]) -> String {
    std::fs::write(server.path(name), bytes).unwrap();
    text_of(&server.path(name))
}

/// Imports `bytes` as `options` say, into an empty database.
fn import(options: &[&str], bytes: &[u8]) -> (Server, Output) {
    let server = Server::start();
    let file = write(&server, "in.csv", bytes);
    let output = server.run(&[&["import", &file], options].concat());
    (server, output)
}

#[track_caller]
fn assert_created(options: &[&str], bytes: &[u8], rows: &str) -> Output {
    let (server, output) = import(options, bytes);
    assert_eq!(output.code, 0, "{options:?}: {output:?}");
    assert_eq!(server.run(&["export"]).ok(), format!("{HEADER}{rows}"), "{options:?}");
    output
}

/// Asserts that nothing is created, with each of `said` on stderr.
#[track_caller]
fn assert_refused(options: &[&str], bytes: &[u8], said: &[&str]) {
    let (server, output) = import(options, bytes);
    assert_eq!(output.code, 2, "{options:?}: {output:?}");
    for said in said {
        assert!(output.stderr.contains(said), "no {said:?} in {}", output.stderr);
    }
    assert_eq!(server.run(&["export"]).ok(), HEADER, "{options:?}");
}

fn fixture(name: &str) -> String {
    text_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/retail").join(name))
}

/// Documents, credit notes, those of nothing, and the total, of one day of the shop.
fn day(db: &Connection, day: &str) -> (i64, i64, i64, i64) {
    let sql = "SELECT count(*), sum(total_amount_cents < 0), sum(total_amount_cents = 0), sum(total_amount_cents)
               FROM invoices WHERE currency = 'GBP' AND date(issued_at, 'unixepoch') = ?1";
    db.query_row(sql, [day], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
}

#[test]
fn two_days_of_a_real_shop_go_in_with_one_command_each() {
    let server = Server::start();
    let mapping = fixture("retail.toml");
    for (day, rows, total) in [("2010-12-01", "143", "58635.56"), ("2010-12-02", "167", "46207.28")]
    {
        let file = fixture(&format!("retail-{day}.csv"));
        let total = format!("GBP={total}");
        let args = ["import", &file, "--mapping", &mapping];
        server.run(&[&args[..], &["--expect-rows", rows, "--expect-total", &total]].concat()).ok();
    }
    let db = Connection::open(server.path("bills.db")).unwrap();
    assert_eq!(day(&db, "2010-12-01"), (143, 6, 10, 5_863_556));
    assert_eq!(day(&db, "2010-12-02"), (167, 23, 2, 4_620_728));
    let files = ["retail-2010-12-01.csv", "retail-2010-12-02.csv"]
        .map(|name| std::fs::read_to_string(fixture(name)).unwrap());
    let rows = files.iter().flat_map(|file| file.lines().skip(1)).map(exported);
    assert_eq!(server.run(&["export"]).ok(), format!("{HEADER}{}", rows.collect::<String>()));
}

/// A document of the shop as `export` has it. In December London has the time of UTC.
fn exported(row: &str) -> String {
    let fields: Vec<_> = row.split(',').collect();
    let [number, date, customer, _, _, amount] = fields[..] else { panic!("{row}") };
    let (time, pence) = (date.replace(' ', "T"), amount.replace('.', ""));
    let pence: i64 = pence.parse().unwrap();
    format!("{number},{customer},{pence},GBP,{time}Z,\n")
}

#[test]
fn a_german_spreadsheet_is_read_with_its_mapping_file() {
    let text = "Rechnung Nr.;Käufer;Straße;Datum;Betrag;\"Währung\";Text\r\n\
                R-1;Müller & Söhne;Weg 1;31.12.2010;1.234,56;eur;\"für \"\"Ä\"\"; bar\"\r\n\
                ;;;;;;\r\n\
                R-2;Groß;;01.07.2011;12,50;EUR;\r\n\
                ;;;;;;\r\n";
    let server = Server::start();
    let file = write(&server, "Januar.csv", &windows_1252(text));
    let mapping = server.file("german.toml", GERMAN);
    let imported = server.run(&["import", &file, "--mapping", &mapping]);
    let note = format!("{file}: skipped 2 empty rows\n");
    assert!(imported.stderr.ends_with(&note), "{imported:?}");
    imported.ok();
    let rows = "R-1,Müller & Söhne,123456,EUR,2010-12-30T23:00:00Z,\"für \"\"Ä\"\"; bar\"\n\
                R-2,Groß,1250,EUR,2011-06-30T22:00:00Z,\n";
    assert_eq!(server.run(&["export"]).ok(), format!("{HEADER}{rows}"));
}

#[test]
fn an_option_beside_a_mapping_file_wins() {
    let text = "Rechnung Nr.\tKäufer\tDatum\tBetrag\tText\nR-1\tGroß\t31.12.2010\t1,00\tbar\n";
    let server = Server::start();
    let file = write(&server, "in.csv", &[b"\xFF\xFE", &utf_16le(text)[..]].concat());
    let mapping = server.file("german.toml", GERMAN);
    let options = ["--mapping", &mapping, "--delimiter", "tab", "--encoding", "utf-16"];
    let more = ["--set", "currency=USD", "--timezone", "UTC"];
    server.run(&[&["import", &file], &options[..], &more].concat()).ok();
    let rows = "R-1,Groß,100,USD,2010-12-31T00:00:00Z,bar\n";
    assert_eq!(server.run(&["export"]).ok(), format!("{HEADER}{rows}"));
}

#[test]
fn each_kind_of_file_is_read_as_it_is_said() {
    let a = "a,c,123456,USD,2024-05-01T00:00:00Z,m\n";
    let csv = |header: &str, row: &str| format!("{header}\n{row}\n");
    let tabs = csv(HEADER.trim_end(), a.trim_end()).replace(',', "\t");
    let amount = |amount: &str| csv(HEADER.trim_end(), &a.trim_end().replace("123456", amount));
    let json = r#"{"no":"a","who":"c","sum":1234.56,"cur":"usd","at":"2024-05-01T00:00:00Z","memo":"m","x":{"y":[1]}}"#;
    const JSON: &str = "invoice_id=no,customer_id=who,total_amount_cents=sum,issued_at=at";
    for (options, bytes) in [
        (
            &["--encoding", "utf-16", "--delimiter", "tab"][..],
            [b"\xFF\xFE", &utf_16le(&tabs)[..]].concat(),
        ),
        (&["--encoding", "utf-16le", "--delimiter", "\\t"], utf_16le(&tabs)),
        (&["--decimal", ".", "--thousands", ","], amount("\"1,234.56\"").into_bytes()),
        (&["--decimal", ",", "--thousands", " "], amount("\"1 234,56\"").into_bytes()),
        (&["--decimal", ",", "--thousands", " "], amount("\"1\u{a0}234,56\"").into_bytes()),
        (&["--decimal", ",", "--thousands", " "], amount("\"1\u{202f}234,56\"").into_bytes()),
        (
            &[
                "--map",
                JSON,
                "--map",
                "currency=cur",
                "--decimal",
                ".",
                "--lowercase-currencies",
                "--ignore-columns",
                "x",
            ],
            json.as_bytes().to_vec(),
        ),
        (
            &["--map", JSON, "--set", "currency=USD", "--decimal", ".", "--ignore-extra-columns"],
            json.as_bytes().to_vec(),
        ),
    ] {
        assert_created(options, &bytes, a);
    }
}

#[test]
fn what_is_refused_names_the_option_that_helps() {
    let a = "a,c,100,USD,2024-05-01T00:00:00Z,m\n";
    let csv = format!("{HEADER}{a}");
    let with = |from: &str, to: &str| csv.replace(from, to).into_bytes();
    for (options, bytes, said) in [
        (&[][..], csv.replace(',', ";").into_bytes(), &["in.csv:1: ", "\n  --delimiter ';' "][..]),
        (&[], [b"\xFF\xFE", &utf_16le(&csv)[..]].concat(), &["--encoding utf-16le "]),
        (
            &[],
            windows_1252(&csv.replace("m\n", "ü\n")),
            &["column memo", "--encoding windows-1252"],
        ),
        (
            &[],
            with("customer_id", "CustomerID"),
            &["unknown column \"CustomerID\"", "--map customer_id=CustomerID "],
        ),
        (&[], with(",memo\n", ",Country\n"), &["--ignore-columns Country "]),
        (
            &[],
            csv.replace("currency,", "").replace("USD,", "").into_bytes(),
            &["--set currency=VALUE "],
        ),
        (
            &[],
            with("USD", "usd"),
            &["in.csv:2: column currency: \"usd\"", "--lowercase-currencies "],
        ),
        (&[], with(",100,", ",\"12,50\","), &["column total_amount_cents: \"12,50\"", "--decimal"]),
        (&[], with("00Z", "00"), &["column issued_at", "--timezone"]),
        (
            &["--set", "currency=GBP"],
            csv.clone().into_bytes(),
            &["column \"currency\" is in the file, and --set"],
        ),
        (&["--set", "curency=GBP"], csv.clone().into_bytes(), &["is it currency?"]),
        (&["--map", "status=memo"], csv.clone().into_bytes(), &["--map status: no such column"]),
        (
            &["--map", "memo=Memo,memo=Note"],
            csv.clone().into_bytes(),
            &["--map says twice what memo is"],
        ),
        (
            &["--map", "memo=M", "--set", "memo=x"],
            csv.clone().into_bytes(),
            &["it is said twice what memo is"],
        ),
        (
            &["--map", "memo=M", "--ignore-columns", "M"],
            csv.clone().into_bytes(),
            &["M is both ignored and mapped"],
        ),
        (&["--delimiter", "ab"], csv.clone().into_bytes(), &["expected tab, or one character"]),
        (
            &["--encoding", "utf-16be"],
            [b"\xFF\xFE", &utf_16le(&csv)[..]].concat(),
            &["and not UTF-16BE as --encoding says"],
        ),
        (
            &["--encoding", "utf-16le"],
            utf_16le(&csv)[..99].to_vec(),
            &["nothing in UTF-16LE: is the file cut?"],
        ),
        (
            &["--mapping", "/nowhere/else.toml"],
            csv.clone().into_bytes(),
            &["/nowhere/else.toml: No such file"],
        ),
    ] {
        assert_refused(options, &bytes, said);
    }
    let server = Server::start();
    let file = server.file("in.csv", &csv);
    let mapping = server.file("m.toml", "delimeter = ';'\n");
    let said = format!("error: {mapping}: unknown key \"delimeter\"; is it delimiter?");
    server.run(&["import", &file, "--mapping", &mapping]).fails(2, &said);
}

#[test]
fn the_first_errors_are_told_at_once_and_the_others_counted() {
    let row = |i: usize| format!("i{i},,1.5,usd,2024,\n");
    let good = "x,c,1,USD,2024-05-01T00:00:00Z,\n";
    let text = format!("{HEADER}{good}{}{good}", (0..10).map(row).collect::<String>());
    let (server, output) =
        import(&["--map", "invoice_id=No"], text.replace("invoice_id", "No").as_bytes());
    let lines: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let file = text_of(&server.path("in.csv"));
    assert_eq!(lines.len(), 21, "{output:?}");
    assert!(lines[0].starts_with(&format!("error: {file}:3: column currency: \"usd\": expected")));
    assert!(lines[4].starts_with(&format!("error: {file}:4: column currency: \"usd\": expected")));
    assert_eq!(lines[20], "error: these are the first 20 of 40 errors");
    assert_eq!(output.code, 2);
    assert_eq!(server.run(&["export"]).ok(), HEADER);
}

#[test]
fn what_the_server_refuses_is_told_by_line_and_column_of_the_file() {
    let text = "No,customer_id,total_amount_cents,currency,issued_at\n\
                ,,,,\n\
                i1,c,1,USD,2024-05-01T00:00:00Z\n\
                \"i\n2\",c,1,USD,2024-05-01T00:00:00Z\n\
                i1,c,1,USD,2024-05-01T00:00:00Z\n";
    assert_refused(
        &["--map", "invoice_id=No"],
        text.as_bytes(),
        &["in.csv:6: column No (invoice_id): \"i1\": expected an id that is not on line 3 already"],
    );
}

#[test]
fn a_file_that_was_cut_is_refused_before_anything_is_booked() {
    let text = THREE.as_bytes();
    let ok: &[&[&str]] = &[
        &["--expect-rows", "3"],
        &["--expect-total", "USD=3000", "--expect-total", "EUR=3000"],
        &["--expect-rows", "3", "--expect-total", "GBP=0"],
    ];
    for options in ok {
        import(options, text).1.ok();
    }
    for (options, said) in [
        (
            &["--expect-rows", "4"][..],
            "in.csv: 3 rows; expected 4 by --expect-rows: is the file cut?",
        ),
        (
            &["--expect-total", "USD=3001"],
            "in.csv: USD 3000 in all; expected 3001 by --expect-total",
        ),
        (&["--expect-total", "GBP=1"], "in.csv: GBP 0 in all; expected 1 by --expect-total"),
        (
            &["--decimal", ".", "--expect-total", "USD=30.00"],
            "USD 3000.00 in all; expected 30.00 by",
        ),
        (&["--expect-total", "USD"], "--expect-total USD: expected a currency, = and an amount"),
        (
            &["--expect-total", "USD=1.5"],
            "--expect-total USD=1.5: expected a whole number of cents",
        ),
    ] {
        assert_refused(options, text, &[said]);
    }
}

const PAYMENTS: &str = "\
Zahlung;Rechnung;Betrag;Tag
p1;a;1,00;01.02.2024
;;;
p2;b;2,00;02.02.2024
";

const PAYMENTS_MAP: [&str; 12] = [
    "--map",
    "event_id=Zahlung,invoice_id=Rechnung,amount_cents=Betrag,received_at=Tag",
    "--set",
    "currency=USD",
    "--delimiter",
    ";",
    "--decimal",
    ",",
    "--time-format",
    "%d.%m.%Y",
    "--timezone",
    "Europe/Berlin",
];

#[test]
fn payments_are_read_in_the_same_ways() {
    let server = Server::with_three();
    let file = server.file("p.csv", PAYMENTS);
    let expect = ["--expect-rows", "2", "--expect-total", "USD=3,00"];
    let applied = server.run(&[&["reconcile", &file], &PAYMENTS_MAP[..], &expect].concat());
    assert!(applied.stderr.contains(&format!("{file}: skipped 1 empty rows\n")), "{applied:?}");
    let acks = applied.ok();
    assert!(
        acks.ends_with(
            "\np1,PARTIAL,PARTIALLY_PAID,900,false,\np2,PARTIAL,PARTIALLY_PAID,1800,false,\n"
        ),
        "{acks}"
    );
}

#[test]
fn a_file_of_payments_is_checked_before_any_is_applied() {
    let server = Server::with_three();
    let before = server.summary();
    let file = server.file("p.csv", &format!("{PAYMENTS}p3;c;3;3.x.24\np4;c\n"));
    let options = [&["reconcile", &file], &PAYMENTS_MAP[..]].concat();
    let wrong = server.run(&options);
    wrong.fails(2, &format!("error: {file}:5: column Tag (received_at): \"3.x.24\": expected"));
    let wrong = server.run(&options);
    wrong.fails(2, &format!("error: {file}:6: 2 fields; expected 4"));
    let whole = server.file("whole.csv", PAYMENTS);
    let cut =
        server.run(&[&["reconcile", &whole], &PAYMENTS_MAP[..], &["--expect-rows", "3"]].concat());
    cut.fails(2, "2 rows; expected 3 by --expect-rows: is the file cut?");
    let pipe = at(
        &[&["reconcile", "-"], &PAYMENTS_MAP[..], &["--expect-rows", "2"]].concat(),
        &server.addr,
    );
    let said = "stdin: --expect-rows and --expect-total are of files: what comes through a pipe is applied before its end";
    run_with_stdin(&pipe, PAYMENTS).fails(2, said);
    assert_eq!(server.summary(), before);
}

#[test]
fn a_payment_in_a_currency_in_lower_case_is_refused_with_the_option_that_helps() {
    let server = Server::with_three();
    let file =
        server.file("p.csv", &format!("{EVENTS}{}", event_row(1, "a").replace("USD", "usd")));
    let refused = server.run(&["reconcile", &file]);
    assert!(
        refused.stderr.contains(&format!("{file}: --lowercase-currencies takes currencies")),
        "{refused:?}"
    );
    assert!(refused.ok().contains("\ne1,REJECTED,"));
    let applied = server.run(&["reconcile", &file, "--lowercase-currencies"]).ok();
    assert!(applied.contains("\ne1,PARTIAL,"), "{applied}");
}

#[test]
fn a_file_that_is_cut_after_it_was_checked_is_told_of() {
    use std::io::{BufRead, BufReader, Read};
    const ROWS: usize = 200_000;
    let server = Server::with_three();
    let mut text = String::from("event_id,invoice_id,amount_cents,currency,received_at\n");
    let row = |i: usize| format!("c{i:06},a,1,USD,2024-01-01T00:00:00Z\n");
    let kept = text.len() + row(0).len() * (ROWS / 2);
    (0..ROWS).for_each(|i| text += &row(i));
    let file = server.file("cut.csv", &text);
    let mut child = billstream(&at(&["reconcile", &file, "--expect-rows", "200000"], &server.addr))
        .spawn()
        .unwrap();
    // It is being sent, and waits for this to be read with most of the file before it.
    let mut acks = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        acks.read_line(&mut String::new()).unwrap();
    }
    std::fs::File::options().write(true).open(&file).unwrap().set_len(kept as u64).unwrap();
    std::io::copy(&mut acks, &mut std::io::sink()).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("it changed after it was checked, when it had 200000 rows"),
        "{stderr}"
    );
}

#[test]
fn a_total_may_be_more_than_one_amount() {
    let server = Server::start();
    let two = "invoice_id,customer_id,total_amount_cents,currency,issued_at\n\
               r1,c,600000000000000,IRR,2024-01-01T00:00:00Z\n\
               r2,c,600000000000000,IRR,2024-01-01T00:00:00Z\n";
    let file = server.file("two.csv", two);
    server.run(&["import", &file, "--expect-total", "IRR=1200000000000000"]).ok();
}
