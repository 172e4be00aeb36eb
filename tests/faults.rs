//! Faults: what a client was told stays true when connections are cut, processes are killed and
//! disks are full. Each test prints what it did; a random one prints its seed.
//!
//! | variable | what it sets |
//! |---|---|
//! | `BILLSTREAM_TEST_SEED` | the seed of the random choices |
//! | `BILLSTREAM_TEST_CANCELS` | uploads that are cancelled (default 400) |
//! | `BILLSTREAM_TEST_KILLS` | rounds of `kill -9` (default 5) |
//! | `BILLSTREAM_TEST_CUTS` | connections that are cut in the middle (default 200) |
//! | `BILLSTREAM_TEST_UPGRADE_KILLS` | upgrades that are killed (default 8) |
//! | `BILLSTREAM_TEST_UPGRADE_KILL_ROWS` | invoices of their file, and events (default 20,000) |
//! | `BILLSTREAM_TEST_UPGRADE_ROWS` | invoices and events of the upgrade whose memory is measured (default 100,000) |
//!
//! A long run: `BILLSTREAM_TEST_CANCELS=10000 cargo test --release --test faults cancels -- --nocapture`

#[path = "faults/cancels.rs"]
mod cancels;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/failing_disk.rs"]
mod failing_disk;
#[path = "faults/file.rs"]
mod file;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/locked.rs"]
mod locked;
#[path = "faults/peers.rs"]
mod peers;
#[path = "faults/proxy.rs"]
mod proxy;
#[path = "interop/python.rs"]
mod python;
#[path = "faults/restore.rs"]
mod restore;
#[path = "faults/retry.rs"]
mod retry;
#[path = "common/skip.rs"]
#[allow(dead_code)] // Nothing here needs a patched core.
mod skip;
#[path = "faults/support.rs"]
mod support;
#[path = "faults/upgrade.rs"]
mod upgrade;
#[path = "faults/ways.rs"]
mod ways;
