//! The file of tokens: read at the start, and again when it has changed.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::calls::auth::Gate;
use crate::certificate;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::tokens::{Tokens, MAX_FILE_BYTES};

use super::watch::Watch;

/// The gate of a server that is to know its callers, and the thread that looks after it.
///
/// # Errors
///
/// [`Error::Invalid`] for a file that cannot be used.
pub fn start(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Option<Arc<Gate>>, Option<Watch>)> {
    if config.tokens.as_os_str().is_empty() {
        return Ok((None, None));
    }
    let file = TokenFile(config.tokens.clone());
    let seen = file.read();
    let tokens = file.take(&seen).map_err(|why| Error::invalid("tokens", why))?;
    let gate = Arc::new(Gate::new(tokens, metrics));
    let (of_watch, again) = (Arc::clone(&gate), file.clone());
    let look = move || again.read();
    let watch = Watch::start("billstream-tokens", seen, look, move |seen| match file.take(seen) {
        Ok(tokens) => of_watch.replace(tokens),
        Err(why) => log::warn!("tokens: {why}; those of before stay in force"),
    })?;
    Ok((Some(gate), Some(watch)))
}

/// The file at this path.
#[derive(Clone)]
struct TokenFile(PathBuf);

/// Its text and its mode, or why it cannot be read.
type Seen = std::result::Result<(String, u32), String>;

impl TokenFile {
    fn read(&self) -> Seen {
        let unreadable = |error: io::Error| self.wrong(error);
        let mut text = String::new();
        let file = certificate::open(&self.0).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        match text.len() as u64 > MAX_FILE_BYTES {
            true => Err(self.wrong(format!("longer than {MAX_FILE_BYTES} bytes"))),
            false => Ok((text, mode)),
        }
    }

    /// The tokens of the file; tells the log of them.
    fn take(&self, seen: &Seen) -> std::result::Result<Tokens, String> {
        let (text, mode) = seen.as_ref().map_err(String::clone)?;
        let tokens: Tokens = text.parse().map_err(|why| self.wrong(why))?;
        let (path, count) = (self.0.display(), tokens.entries().len());
        log::info!("tokens: {count} entries of {path}");
        if count == 0 {
            log::warn!("tokens: {path} has no entry: no token is let in (a certificate is, where there is tls_client_ca)");
        }
        if mode & 0o077 != 0 {
            let mode = mode & 0o777;
            log::warn!("tokens: {path} is not its owner's alone (mode {mode:o}): chmod 600 it");
        }
        Ok(tokens)
    }

    fn wrong(&self, why: impl fmt::Display) -> String {
        format!("{}: {why}", self.0.display())
    }
}
