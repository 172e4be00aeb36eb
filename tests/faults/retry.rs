//! An upload whose acknowledgement was lost is repeated with its `batch_id`, and is there once.

use std::sync::Arc;

use billstream::client::Stub;
use billstream::proto::report::BulkResult;
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{RpcStatusCode, WriteFlags};

use crate::proxy::{Cut, Proxy};
use crate::support::{
    assert_sound, code, commit, commit_required, environment, rows_by_customer, send_rows, upload,
    wait_for, Local,
};

/// Uploads, and cuts the connection after the server has committed and before it can say so.
fn lose_acknowledgement(local: &Local, batch: &str, rows: usize, how: Cut) {
    let proxy = Proxy::start(local.addr());
    let client = Stub::with_env(environment(), &proxy.addr());
    let created = || local.server.metrics().invoices_created.get();
    let before = created();
    let (mut requests, result) = client.bulk_create(commit_required()).unwrap();
    block_on(async {
        send_rows(&mut requests, batch, 0..rows).await.unwrap();
        proxy.swallow_answers();
        requests.send((commit(batch, rows), WriteFlags::default())).await.unwrap();
        requests.close().await.unwrap();
    });
    wait_for("the upload is committed", || created() == before + rows as u64);
    proxy.cut(how);
    let lost = block_on(result).unwrap_err();
    assert_eq!(code(&lost), Some(RpcStatusCode::UNAVAILABLE), "{lost}");
}

#[test]
fn a_retry_after_a_lost_acknowledgement_gets_the_first_result() {
    let local = Local::start(|_| ());
    let client = local.client();
    let mut last_sequence = 0;
    for (i, how) in [Cut::Reset, Cut::Finish].into_iter().cycle().take(10).enumerate() {
        let (batch, rows) = (format!("lost-{i}"), 1 + 20 * i);
        lose_acknowledgement(&local, &batch, rows, how);
        // Twice, because the second acknowledgement can be lost as well.
        for _ in 0..2 {
            let again = upload(&client, &batch, rows, Some(&batch)).unwrap();
            assert!(again.already_applied);
            assert_eq!((&again.batch_id, again.created_count), (&batch, rows as i64));
            assert_eq!(
                (again.first_sequence, again.last_sequence),
                (last_sequence + 1, last_sequence + rows as i64)
            );
        }
        last_sequence += rows as i64;

        let refused = upload(&client, &batch, rows + 1, Some(&batch)).unwrap_err();
        assert_eq!(code(&refused), Some(RpcStatusCode::ABORTED), "{refused}");
        assert!(refused.to_string().contains(&batch), "{refused}");
    }
    local.stop_and(|conn| {
        assert_sound(conn);
        let stored = rows_by_customer(conn);
        (0..10).for_each(|i| assert_eq!(stored[&format!("lost-{i}")], 1 + 20 * i));
    });
}

#[test]
fn retries_that_race_create_once() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 10;
    let local = Local::start(|_| ());
    let env = environment();
    let clients: Vec<Stub> =
        (0..CLIENTS).map(|_| Stub::with_env(Arc::clone(&env), &local.addr().to_string())).collect();
    for round in 0..ROUNDS {
        let batch = format!("race-{round}");
        let one = |client: &Stub| upload(client, &batch, 50, Some(&batch)).unwrap();
        let results: Vec<BulkResult> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                clients.iter().map(|client| scope.spawn(|| one(client))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first = results.iter().filter(|result| !result.already_applied).count();
        assert_eq!(first, 1, "uploads that created {batch}");
        for result in &results {
            assert_eq!(result.created_count, 50);
            assert_eq!(result.first_sequence, results[0].first_sequence);
            assert_eq!(result.totals, results[0].totals);
        }
    }
    local.stop_and(|conn| {
        assert_sound(conn);
        assert!(rows_by_customer(conn).values().all(|rows| *rows == 50));
    });
}
