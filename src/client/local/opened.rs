//! A database without a server.

use std::sync::Arc;

use crate::calls::start::Threads;
use crate::calls::Core;
use crate::config::Config;
use crate::error::Result;

/// A core of this process alone. Dropping it closes the database.
pub struct Opened {
    core: Arc<Core>,
    _threads: Threads,
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
