//! The settings of the connections, and what all peers together may take of gRPC.

use std::sync::Arc;

use grpcio::{ChannelBuilder, Environment, ResourceQuota};

use crate::config::Config;

/// The settings of the connections. (Public for a program that measures what gRPC itself can do.)
pub fn channel(env: &Arc<Environment>, config: &Config) -> ChannelBuilder {
    let quota = ResourceQuota::new(Some("peers")).resize_memory(config.grpc_memory_bytes);
    let builder = ChannelBuilder::new(Arc::clone(env))
        // Two servers would otherwise share a port in silence.
        .reuse_port(false)
        // Limited by a patched C core, and by `grpc::codec::Request`, which costs less.
        .max_receive_message_len(-1)
        // A stream past our limit is to be answered, not held back by the client; the room above
        // the limit is for unary calls and for the answers.
        .max_concurrent_stream(int(config.max_streams_per_connection).saturating_add(1024))
        .set_resource_quota(quota)
        .keepalive_permit_without_calls(true);
    let ms = |value: u64| int(usize::try_from(value).unwrap_or(usize::MAX));
    let ms_or_never = |value: u64| if value == 0 { i32::MAX } else { ms(value) };
    let ints = [
        // Without it a message costs 10 to 15 % less. With it too, only a call is compressed that has the
        // header of `grpc::export` for it.
        (c"grpc.per_message_compression", (config.export_compression_level > 0).into()),
        (c"grpc.gzip_compression_level", int(config.export_compression_level.max(1))),
        // The client's timer ends the call at its deadline, and `calls::call` the work.
        (c"grpc.enable_deadline_checking", 0),
        // What `/channelz` shows; nothing is kept for it where nobody can ask.
        (c"grpc.enable_channelz", i32::from(!config.admin_listen.is_empty())),
        // A set of one: messages as they are. A compressed request is UNIMPLEMENTED, and is not inflated: half a
        // MiB of gzip may be half a GiB.
        (c"grpc.compression_enabled_algorithms_bitset", 1),
        (c"grpc.keepalive_time_ms", ms(config.keepalive_time_ms)),
        (c"grpc.keepalive_timeout_ms", ms(config.keepalive_timeout_ms)),
        (c"grpc.http2.min_ping_interval_without_data_ms", ms(config.min_ping_interval_ms)),
        (c"grpc.max_connection_age_ms", ms_or_never(config.max_connection_age_ms)),
        (c"grpc.max_connection_age_grace_ms", ms_or_never(config.max_connection_age_grace_ms)),
        (c"grpc.max_connection_idle_ms", ms_or_never(config.max_connection_idle_ms)),
        // A newer gRPC refuses some calls past the first of them, and all past the second.
        (c"grpc.max_metadata_size", int(config.max_metadata_bytes)),
        (c"grpc.absolute_max_metadata_size", int(config.max_metadata_bytes)),
        // Of `build/grpc-patches.cmake`; another core does not know them.
        (c"grpc.billstream.max_message_bytes", int(config.max_message_bytes)),
        (c"grpc.billstream.resets_per_second", int(config.max_resets_per_second)),
    ];
    ints.into_iter()
        .fold(builder, |builder, (name, value)| builder.raw_cfg_int(name.to_owned(), value))
}

fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
