//! The start of a core, and the threads that it runs on.

use std::sync::atomic::AtomicUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::calls::call::{Seldom, Stopping};
use crate::calls::held::HeldByAll;
use crate::calls::limits::Limits;
use crate::calls::line::Slow;
use crate::calls::live::Streams;
use crate::calls::request_id::RequestIds;
use crate::calls::sweep::Sweep;
use crate::calls::unary::UnderWay;
use crate::calls::Core;
use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::peer::Share;
use crate::store::{Store, StoreThread};
use crate::workers::Workers;

/// What keeps a [`Core`] at work. Dropping it ends that in the order of the fields: the workers first, since a
/// scan that still runs sees that its receiver is gone.
pub struct Threads {
    exports: Workers,
    unary: Workers,
    spool: Workers,
    backups: Workers,
    readers: Readers,
    /// The database that was made is kept once this is told so.
    pub store: StoreThread,
    sweep: Sweeping,
}

/// The connections of readers, which are closed when this is dropped.
struct Readers(Store);

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The thread that looks after calls that wait. Dropping this ends it.
pub struct Sweeping {
    sweep: Sweep,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.sweep.close();
        // A look at a call panics only where the call itself would.
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the sweep thread panicked");
        }
    }
}

impl Core {
    /// Opens the database and starts the threads of the calls.
    pub fn start(config: Config) -> Result<(Arc<Core>, Threads)> {
        config.validate()?;
        let metrics = Arc::new(Metrics::default());
        let (store, store_thread) = Store::open(&config, &metrics)?;
        let (threads, queued) = (config.unary_workers, config.max_queued_unary);
        let unary = Workers::start("billstream-unary", threads, queued, config.share())?;
        // Their peers have their shares of the streams. There is room for every export, and for a block
        // ahead of each that runs; and for every upload.
        let (threads, queued) = (config.export_workers, config.max_exports + config.export_workers);
        let exports = Workers::start("billstream-export", threads, queued, Share::ALL)?;
        let spool = Workers::start("billstream-spool", 1, config.max_uploads, Share::ALL)?;
        let backups = config.max_backups;
        let backups = Workers::start("billstream-backup", backups, backups, Share::ALL)?;
        let sweep = Sweep::default();
        let sweeping = Sweeping { thread: Some(sweep.start()?), sweep: sweep.clone() };
        let core = Arc::new(Core {
            started: Instant::now(),
            store: store.clone(),
            limits: Limits::new(&config),
            streams: Streams::default(),
            held_by_reconciles: Arc::new(HeldByAll::new(config.reconcile_memory_bytes)),
            metrics,
            unary: unary.queue(),
            unary_calls: UnderWay::default(),
            exports: exports.queue(),
            spool: spool.queue(),
            backups: backups.queue(),
            sweep,
            calls_open: AtomicUsize::new(0),
            stopping: Stopping::default(),
            seldom: Seldom::default(),
            request_ids: RequestIds::default(),
            slow: Slow::default(),
            config,
        });
        let readers = Readers(store);
        let (store, sweep) = (store_thread, sweeping);
        let threads = Threads { exports, unary, spool, backups, readers, store, sweep };
        Ok((core, threads))
    }
}

impl Threads {
    /// Ends all but what looks after calls: those of a transport may still have to end.
    pub fn stop(self) -> Sweeping {
        let Threads { exports, unary, spool, backups, readers, store, sweep } = self;
        exports.stop();
        unary.stop();
        spool.stop();
        backups.stop();
        drop(readers);
        drop(store);
        sweep
    }
}
