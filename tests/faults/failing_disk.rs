//! A disk that fails to read, to write or to sync: what it failed is UNAVAILABLE and is not acknowledged,
//! the server goes on, and when the disk works again so does everything.

use std::fs;

use billstream::client::Stub;
use billstream::proto::report::ReconcileAck;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode, WriteFlags};

use crate::disks::failing_disk;
use crate::support::{assert_sound, code, open, options, payment, upload, Served};

fn pay(client: &Stub, event_id: &str) -> grpcio::Result<ReconcileAck> {
    let (mut events, mut acks) = client.reconcile(options())?;
    block_on(async {
        events.send((payment(event_id.to_owned(), "first", 0, 1), WriteFlags::default())).await?;
        events.close().await?;
        acks.next().await.expect("an acknowledgement or an error")
    })
}

fn assert_unavailable<T: std::fmt::Debug>(result: grpcio::Result<T>, kind: &str) {
    let refused = result.expect_err(kind);
    assert_eq!(code(&refused), Some(RpcStatusCode::UNAVAILABLE), "{kind}: {refused}");
}

#[test]
fn a_disk_that_fails_is_unavailable_and_loses_nothing() {
    for kind in ["read", "write", "sync"] {
        let dir = tempfile::tempdir().unwrap();
        let (db, switch) = (dir.path().join("bills.db"), dir.path().join("switch"));
        let library = failing_disk(dir.path());
        let start = || {
            Served::start_with(&db, &[], |command| {
                command.env("LD_PRELOAD", &library).env("FAILING_DISK", &switch);
            })
        };
        let served = start();
        upload(&Stub::new(&served.addr.to_string()), "first", 300, Some("first")).unwrap();
        // The next one has nothing of the file in memory.
        served.stop();
        let served = start();
        let client = Stub::new(&served.addr.to_string());
        fs::write(&switch, kind).unwrap();
        for _ in 0..3 {
            assert_unavailable(upload(&client, "second", 300, Some("second")), kind);
            assert_unavailable(pay(&client, "event"), kind);
        }
        fs::remove_file(&switch).unwrap();
        assert_eq!(upload(&client, "second", 300, Some("second")).unwrap().created_count, 300);
        pay(&client, "event").unwrap();
        served.kill();

        let served = start();
        let client = Stub::new(&served.addr.to_string());
        assert!(upload(&client, "second", 300, Some("second")).unwrap().already_applied, "{kind}");
        assert!(pay(&client, "event").unwrap().duplicate, "{kind}: it was acknowledged");
        served.stop();
        assert_sound(&open(&db));
    }
}
