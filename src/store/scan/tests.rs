use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::*;
use crate::metrics::Metrics;
use crate::model::{Status, Timestamp};
use crate::store::sqlite::{params, Connection};
use crate::store::Store;
use proptest::prelude::*;

/// What is in a database besides the sequences: invoices by their sequence.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    /// Every so many is void.
    void: i64,
    /// Every so many is of the customer `rare`, and the others are of `often`.
    rare: i64,
}

const PLAIN: Pattern = Pattern { void: i64::MAX, rare: i64::MAX };

impl Pattern {
    fn customer(self, sequence: i64) -> &'static str {
        if sequence % self.rare == 0 {
            "rare"
        } else {
            "often"
        }
    }

    fn status(self, sequence: i64) -> i64 {
        (if sequence % self.void == 0 { Status::Void } else { Status::Open }) as i64
    }

    fn matches(self, source: &Source, sequence: i64) -> bool {
        let Source::Invoices(filter) = source else { return true };
        let Filter { customer_id, statuses, issued_from, issued_until } = filter;
        (customer_id.is_empty() || customer_id == self.customer(sequence))
            && statuses >> self.status(sequence) & 1 == 1
            && (issued_from.seconds..issued_until.seconds).contains(&sequence)
    }
}

/// A database whose invoices have these sequences, each issued at the second of its number, and whose events too.
fn database(sequences: &[i64], pattern: Pattern) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        db: dir.path().join("bills.db"),
        export_first_chunk_bytes: 100,
        export_chunk_bytes: 200,
        ..Config::default()
    };
    let (_, thread) = Store::open(&config, &Arc::default()).unwrap();
    thread.stop();
    let mut conn = Connection::open(&config.db).unwrap();
    let transaction = conn.transaction().unwrap();
    let insert = "INSERT INTO invoices VALUES (?1, ?1, ?2, 1, 'EUR', ?3, 0, ?1, 0, ?4, 0)";
    let mut insert = transaction.prepare(insert).unwrap();
    for sequence in sequences {
        let (customer, status) = (pattern.customer(*sequence), pattern.status(*sequence));
        let memo = "m".repeat((sequence % 7) as usize * 9);
        insert.execute(params![sequence, customer, status, memo]).unwrap();
    }
    drop(insert);
    let insert = "INSERT INTO reconcile_events SELECT sequence, 0, 'event of ' || sequence, invoice_id, 1, 1,
        currency, issued_at, 0, memo, 2, 3, 0 FROM invoices";
    transaction.execute(insert, []).unwrap();
    transaction.commit().unwrap();
    (dir, config)
}

fn set(filter: Filter) -> Set {
    Set { source: Source::Invoices(filter), after: 0, until: i64::MAX, max_rows: 0 }
}

fn void() -> Filter {
    Filter { statuses: 1 << Status::Void as i64, ..Filter::ALL }
}

/// No other thread helps.
fn no_block(_: Ahead) -> Option<Ahead> {
    None
}

prop_compose! {
    fn filters()(
        customer_id in prop_oneof![2 => Just(""), 1 => Just("rare"), 1 => Just("often")],
        statuses in prop_oneof![
            Just(Filter::ALL_STATUSES), Just(1 << Status::Void as i64), Just(1 << Status::Open as i64)
        ],
        dates in prop::option::of((0..3000i64, 0..9000i64)),
    ) -> Filter {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let (from, until) = dates.unwrap_or((i64::MIN, i64::MAX));
        let customer_id = customer_id.to_owned();
        Filter { customer_id, statuses, issued_from: at(from), issued_until: at(until) }
    }
}

fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![
        1 => Just(Source::Invoices(Filter::ALL)),
        1 => filters().prop_map(Source::Invoices),
        1 => Just(Source::Events),
    ]
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let period = prop_oneof![Just(2i64), Just(17), Just(900), Just(i64::MAX)];
    (period.clone(), period).prop_map(|(void, rare)| Pattern { void, rare })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the gaps, the filter, the answers to offers, when a turn is over or the log too large, and
    /// the blocks that found a thread: each row that matches comes once, in order.
    #[test]
    fn blocks_ahead_and_coming_up_for_air_change_nothing(
        gaps in prop::collection::vec(prop_oneof![9 => Just(1i64), 1 => 1..40i64], 1..600),
        times in 1..8usize,
        (pattern, source) in (patterns(), sources()),
        answers in prop::collection::vec(0..40u8, 1..30),
        airs in prop::collection::vec((any::<bool>(), any::<bool>()), 1..9),
        free in prop::collection::vec(any::<bool>(), 1..5),
        (after, max_rows) in (0..50i64, prop_oneof![3 => Just(0i64), 1 => 1..700i64]),
        quick in 200..900usize,
    ) {
        let gaps = gaps.iter().cycle().take(gaps.len() * times);
        let sequences: Vec<i64> = gaps.scan(0, |last, gap| { *last += gap; Some(*last) }).collect();
        let (_dir, config) = database(&sequences, pattern);
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let set = Set { source: source.clone(), after, until: i64::MAX, max_rows };
        let mut scan = store.scan(set, quick);
        let (mut seen, mut offers) = (Vec::new(), 0);
        let (blocks, looks) = (Cell::new(0), Cell::new(0));
        let ahead = |block: Ahead| {
            blocks.set(blocks.get() + 1);
            free[blocks.get() % free.len()].then_some(block)
        };
        let is_over = || {
            looks.set(looks.get() + 1);
            let (is_over, is_log_large) = airs[looks.get() % airs.len()];
            store.database().pressure().set(is_log_large);
            is_over
        };
        loop {
            let turn = scan.turn(&Stop::default(), ahead, is_over, |chunk| {
                offers += 1;
                let answer = answers[offers % answers.len()];
                if answer == 0 && offers % 2 == 0 {
                    return Offer::Refused;
                }
                seen.extend((0..chunk.len()).map(|i| chunk.sequence(i)));
                match answer {
                    1 => Offer::TakenLast,
                    2 | 3 => Offer::TakenLate,
                    _ => Offer::Taken,
                }
            });
            if turn.unwrap() == Turn::Done {
                break;
            }
        }
        let most = if max_rows == 0 { usize::MAX } else { max_rows as usize };
        let is_match = |s: &i64| *s > after && pattern.matches(&source, *s);
        let expected: Vec<_> = sequences.iter().copied().filter(is_match).take(most).collect();
        thread.stop();
        prop_assert_eq!(seen, expected);
    }
}

/// Where nothing matches nothing is offered, and the scan is asked all the same whether it may go on. What
/// it found before is offered when there is a chunk of it, and not sooner.
#[test]
fn a_scan_comes_up_for_air_after_a_bounded_number_of_rows() {
    let sequences: Vec<i64> = (1..=20_000).chain((1 << 60) + 1..(1 << 60) + 20_000).collect();
    let (_dir, config) = database(&sequences, Pattern { void: 5_000, rare: 2 });
    for customer_id in ["", "rare"] {
        let metrics = Arc::new(Metrics::default());
        let (store, thread) = Store::open(&config, &metrics).unwrap();
        let filter = Filter { customer_id: customer_id.to_owned(), ..void() };
        let mut scan = store.scan(set(filter), 200);
        let (read, looks, chunks) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
        let look = || {
            let rows = metrics.rows_scanned.get() - read.replace(metrics.rows_scanned.get());
            assert!(rows <= ROWS_A_LOOK as u64, "{rows} rows in one breath");
            looks.set(looks.get() + 1);
        };
        let is_over = || {
            look();
            looks.get() % 3 == 0
        };
        let offer = |chunk: Chunk| {
            look();
            chunks.borrow_mut().push(chunk.len());
            Offer::Taken
        };
        let (stop, mut turns) = (Stop::default(), 1);
        while scan.turn(&stop, no_block, is_over, offer).unwrap() == Turn::Paused {
            turns += 1;
        }
        let rows = sequences.iter().filter(|s| customer_id.is_empty() || *s % 2 == 0).count();
        // Each is read once, however often the scan was sent away with some of a chunk in hand.
        assert_eq!(metrics.rows_scanned.get(), rows as u64);
        assert!(looks.get() >= rows / ROWS_A_LOOK, "{} looks", looks.get());
        assert!(turns > 5, "{turns} turns");
        // The first has 100 bytes, which are two rows.
        assert_eq!(chunks.borrow()[0], 2);
        let matching = sequences.iter().filter(|s| *s % 5_000 == 0).count();
        assert_eq!(chunks.borrow().iter().sum::<usize>(), matching);
        thread.stop();
    }
}

#[test]
fn a_quick_client_has_blocks_scanned_ahead() {
    let (_dir, config) = database(&(1..=2000).collect::<Vec<_>>(), PLAIN);
    let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
    let blocks = Cell::new(0);
    let run = |offer: fn(Chunk) -> Offer| {
        let mut scan = store.scan(set(Filter::ALL), 200);
        let ahead = |block: Ahead| {
            blocks.set(blocks.get() + 1);
            Some(block)
        };
        scan.turn(&Stop::default(), ahead, || false, offer).unwrap();
        blocks.take()
    };
    assert!(run(|_| Offer::Taken) > 10);
    assert_eq!(run(|_| Offer::TakenLate), 0);
    thread.stop();
}

#[test]
fn a_client_that_is_quick_has_larger_chunks_until_it_pauses() {
    let (_dir, config) = database(&(1..=2000).collect::<Vec<_>>(), PLAIN);
    let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
    let sizes = |offer: fn(usize) -> Offer| {
        let mut scan = store.scan(set(Filter::ALL), 400);
        let (mut sizes, stop) = (Vec::new(), Stop::default());
        let mut take = |chunk: Chunk| {
            sizes.push(chunk.batch().len());
            offer(sizes.len())
        };
        while scan.turn(&stop, no_block, || false, &mut take).unwrap() != Turn::Done {}
        sizes
    };
    // A row of them has at most 100 bytes.
    let is_large = |size: &usize| (400..500).contains(size);
    let is_small = |size: &usize| *size < 300;
    assert!(sizes(|_| Offer::TakenLate).iter().all(is_small));
    let quick = sizes(|i| if i == 30 { Offer::Refused } else { Offer::Taken });
    assert!(quick[20..30].iter().all(is_large), "{quick:?}");
    assert!(quick[30..35].iter().all(is_small), "{quick:?}");
    assert!(quick[50..60].iter().all(is_large), "{quick:?}");
    thread.stop();
}
