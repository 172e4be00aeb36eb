//! The room on a disk.

use std::path::Path;

use crate::error::{Error, Result};

/// Refuses what would take more than there is.
///
/// # Errors
///
/// [`Error::Exhausted`], where waiting is no help.
pub fn require(dir: &Path, bytes: u64) -> Result<()> {
    // Where the system does not tell, the writes will.
    let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    let message =
        format!("the disk of {} has {free} bytes free, and {bytes} are needed", dir.display());
    Err(Error::Exhausted { message, retry_after: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_disk_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(require(dir.path(), 1), Ok(()));
        let refused = require(dir.path(), u64::MAX).unwrap_err();
        assert!(matches!(&refused, Error::Exhausted { retry_after: None, .. }), "{refused}");
    }
}
