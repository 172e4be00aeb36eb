//! What the C core knows of its servers and their connections, as JSON of `grpc.channelz.v1`
//! (<https://github.com/grpc/proposal/blob/master/A14-channelz.md>). It is that of the whole process.

use grpcio::channelz;

/// The most connections in an answer.
const MAX_SOCKETS: usize = 100;

/// The answer to a path: nothing (all servers), `/server/ID`, `/server/ID/sockets`,
/// `/server/ID/sockets/AFTER` (those with an ID from there on), `/socket/ID`. `None` where there is no such thing.
pub fn json(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let json = match parts[..] {
        [""] => channelz::get_servers(0, str::to_owned),
        ["", "server", id] => channelz::get_server(number(id)?, str::to_owned),
        ["", "server", id, "sockets"] => sockets(number(id)?, 0),
        ["", "server", id, "sockets", start] => sockets(number(id)?, number(start)?),
        ["", "socket", id] => channelz::get_socket(number(id)?, str::to_owned),
        _ => return None,
    };
    (!json.is_empty()).then_some(json)
}

fn sockets(server: u64, start: u64) -> String {
    channelz::get_server_sockets(server, start, MAX_SOCKETS, str::to_owned)
}

/// The C core has numbers with a sign, and asserts that they have none.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|id| i64::try_from(*id).is_ok())
}
