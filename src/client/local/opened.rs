//! A database without a server.

use std::sync::Arc;

use crate::calls::start::Threads;
use crate::calls::Core;
use crate::config::Config;
use crate::error::Result;
use crate::stop::Reason;

/// A core of this process alone. Dropping it closes the database.
pub struct Opened {
    core: Arc<Core>,
    _threads: Threads,
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A backup that nobody reads any more would hold its thread for ever.
        self.core.stopping.calls.stop(Reason::Stopping);
    }
}

impl Opened {
    pub fn start(config: Config) -> Result<Opened> {
        let (core, mut threads) = Core::start(config)?;
        threads.store.keep();
        Ok(Opened { core, _threads: threads })
    }

    pub fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }
}
