//! What systemd is told, for a unit of `Type=notify`. Nothing is said where no such unit started the process.

use std::time::Duration;

use billstream::server::Address;
use sd_notify::{notify, NotifyState};

/// It serves; `systemctl status` shows where.
pub fn serving(addresses: &[Address]) {
    let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
    let status = format!("serving on {}", addresses.join(", "));
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// It stops, for which it may take as long as `drain_timeout` says and a little more, whatever the unit says.
pub fn stopping(drain_timeout: Duration) {
    const TO_CLOSE: Duration = Duration::from_secs(30);
    let enough = u32::try_from((drain_timeout + TO_CLOSE).as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: open calls may end"),
        NotifyState::ExtendTimeoutUsec(enough),
    ]);
}

/// A server that systemd cannot hear serves all the same, until systemd ends it for its silence: so say why.
fn tell(state: &[NotifyState]) {
    if let Err(error) = notify(state) {
        log::warn!("systemd cannot be told: {error}");
    }
}
