# Changes of ours to the gRPC C core 1.56.2, made to copies in cmake's binary directory; the sources
# themselves are never touched. Each says why it is there, and tests/abuse has its test. A core built so
# behaves as before until it is asked, with the channel arguments "grpc.billstream.*" of
# src/server/channel.rs; the errors of accept are the one exception.
#
# After a change here, raise the number in .cargo/config.toml and src/server/patches.rs: cargo does not
# look at this file, and would keep the core that is built.

set(billstream_patches_dir "${CMAKE_CURRENT_LIST_DIR}")
set(billstream_patched_dir "${CMAKE_BINARY_DIR}/billstream")

# Reads a source of gRPC for the changes that follow, up to billstream_close().
function(billstream_open file)
  set(path "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${path}")
  file(READ "${path}" text)
  set(billstream_file "${file}" PARENT_SCOPE)
  set(billstream_text "${text}" PARENT_SCOPE)
endfunction()

# Replaces every occurrence of a text. The build stops when there is none: the text is what the change
# was reviewed with.
function(billstream_replace from to)
  string(FIND "${billstream_text}" "${from}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "A change of build/grpc-patches.cmake does not apply to ${billstream_file} "
      "of the gRPC C core ${PACKAGE_VERSION}. This is not in it:\n${from}")
  endif()
  string(REPLACE "${from}" "${to}" text "${billstream_text}")
  set(billstream_text "${text}" PARENT_SCOPE)
endfunction()

# Writes the copy, and gives it to the target in the place of the original. A copy that is the same
# keeps its time, so that nothing is compiled again.
function(billstream_close)
  set(path "${billstream_patched_dir}/${billstream_file}")
  set(before "")
  if(EXISTS "${path}")
    file(READ "${path}" before)
  endif()
  if(NOT before STREQUAL billstream_text)
    file(WRITE "${path}" "${billstream_text}")
  endif()
  get_target_property(sources grpc SOURCES)
  list(TRANSFORM sources REPLACE "^${billstream_file}$" "${path}")
  set_property(TARGET grpc PROPERTY SOURCES "${sources}")
endfunction()

# Resets (rapid reset, CVE-2023-44487; made you reset, CVE-2025-8671). 1.56.2 counts none: a stream that
# is reset leaves max_concurrent_streams at once, but its call is made, queued and torn down, which costs
# more than to answer it. Counted by peer in grpc-resets.h; past the allowance the connection ends with
# GOAWAY, ENHANCE_YOUR_CALM, and the peer cannot connect for a second.
billstream_open(src/core/ext/transport/chttp2/transport/internal.h)
billstream_replace([==[  grpc_core::Slice peer_string;
]==] [==[  grpc_core::Slice peer_string;
  // Of billstream: resets allowed a second (0: any number), the peer whose
  // they are, and the largest message.
  int resets_per_second = 0;
  size_t resets_peer = 0;
  uint32_t max_message_bytes = UINT32_MAX;
]==])
billstream_replace([==[/// Resets ping clock. Should be called when flushing window updates,
]==] [==[/// Of billstream: counts a reset that the peer sent, or made this side send.
/// When it is one too many, closes the transport, and gives the error with
/// which parsing ends.
grpc_error_handle grpc_chttp2_count_reset(grpc_chttp2_transport* t);

/// Resets ping clock. Should be called when flushing window updates,
]==])
billstream_close()

billstream_open(src/core/ext/transport/chttp2/transport/chttp2_transport.cc)
billstream_replace([==[#include "src/core/ext/transport/chttp2/transport/internal.h"
]==] [==[#include "src/core/ext/transport/chttp2/transport/internal.h"
#include "grpc-resets.h"
]==])
billstream_replace([==[  const int max_hpack_table_size =
]==] [==[  if (!is_client) {
    t->resets_per_second = std::max(
        0, channel_args.GetInt("grpc.billstream.resets_per_second").value_or(0));
    t->resets_peer = billstream::Resets::Peer(t->peer_string.as_string_view());
    const int max_message_bytes =
        channel_args.GetInt("grpc.billstream.max_message_bytes").value_or(-1);
    if (max_message_bytes >= 0) t->max_message_bytes = max_message_bytes;
  }

  const int max_hpack_table_size =
]==])
billstream_replace([==[void grpc_chttp2_reset_ping_clock(grpc_chttp2_transport* t) {
]==] [==[grpc_error_handle grpc_chttp2_count_reset(grpc_chttp2_transport* t) {
  if (t->resets_per_second == 0 ||
      billstream::Resets::Allow(t->resets_peer, t->resets_per_second)) {
    return absl::OkStatus();
  }
  GRPC_LOG_EVERY_N_SEC(
      1, GPR_ERROR, "%s resets too many streams: its connection ends",
      std::string(t->peer_string.as_string_view()).c_str());
  send_goaway(t,
              grpc_error_set_int(GRPC_ERROR_CREATE("too_many_resets"),
                                 grpc_core::StatusIntProperty::kHttp2Error,
                                 GRPC_HTTP2_ENHANCE_YOUR_CALM),
              /*immediate_disconnect_hint=*/true);
  auto error = grpc_error_set_int(GRPC_ERROR_CREATE("Too many resets"),
                                  grpc_core::StatusIntProperty::kRpcStatus,
                                  GRPC_STATUS_UNAVAILABLE);
  close_transport_locked(t, error);
  return error;
}

void grpc_chttp2_reset_ping_clock(grpc_chttp2_transport* t) {
]==])
billstream_close()

billstream_open(src/core/ext/transport/chttp2/transport/frame_rst_stream.cc)
billstream_replace([==[    grpc_chttp2_mark_stream_closed(t, s, true, true, error);
  }

  return absl::OkStatus();
]==] [==[    grpc_chttp2_mark_stream_closed(t, s, true, true, error);
    return grpc_chttp2_count_reset(t);
  }

  return absl::OkStatus();
]==])
billstream_close()

# The same for what the peer makes the server reset; and two limits that held only from the peer's
# acknowledgement of SETTINGS on, which it need never send: 100,000 streams on one connection took 1 GiB,
# and a call could bring 16 MiB of metadata. A stream past the limit is refused, so that a client that has
# not read it yet loses nothing.
billstream_open(src/core/ext/transport/chttp2/transport/parsing.cc)
billstream_replace([==[                                             GRPC_HTTP2_PROTOCOL_ERROR,
                                             &s->stats.outgoing);
    return init_non_header_skip_frame_parser(t);
]==] [==[                                             GRPC_HTTP2_PROTOCOL_ERROR,
                                             &s->stats.outgoing);
    grpc_error_handle too_many = grpc_chttp2_count_reset(t);
    if (!too_many.ok()) return too_many;
    return init_non_header_skip_frame_parser(t);
]==])
billstream_replace([==[      grpc_chttp2_cancel_stream(t, s, err);
    }
    return absl::OkStatus();
]==] [==[      grpc_chttp2_cancel_stream(t, s, err);
    }
    return grpc_chttp2_count_reset(t);
]==])
billstream_replace([==[      return GRPC_ERROR_CREATE("Max stream count exceeded");
]==] [==[      return GRPC_ERROR_CREATE("Max stream count exceeded");
    } else if (GPR_UNLIKELY(
                   grpc_chttp2_stream_map_size(&t->stream_map) >=
                   t->settings[GRPC_LOCAL_SETTINGS]
                              [GRPC_CHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS])) {
      t->last_new_stream_id = t->incoming_stream_id;
      grpc_chttp2_add_rst_stream_to_next_write(
          t, t->incoming_stream_id, GRPC_HTTP2_REFUSED_STREAM, nullptr);
      grpc_chttp2_initiate_write(t, GRPC_CHTTP2_INITIATE_WRITE_RST_STREAM);
      grpc_error_handle too_many = grpc_chttp2_count_reset(t);
      if (!too_many.ok()) return too_many;
      return init_header_skip_frame_parser(t, priority_type, is_eoh);
]==])
billstream_replace([==[      t->settings[GRPC_ACKED_SETTINGS]
                 [GRPC_CHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE],
]==] [==[      std::min(t->settings[GRPC_ACKED_SETTINGS]
                          [GRPC_CHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE],
               t->settings[GRPC_LOCAL_SETTINGS]
                          [GRPC_CHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE]),
]==])
# Who speaks something else (TLS to a port without it, HTTP/1) is told of, for src/server/core_log.rs: it was
# closed in silence.
billstream_replace([==[        if (*cur != GRPC_CHTTP2_CLIENT_CONNECT_STRING[t->deframe_state]) {
]==] [==[        if (*cur != GRPC_CHTTP2_CLIENT_CONNECT_STRING[t->deframe_state]) {
          const uint8_t first =
              t->deframe_state == GRPC_DTS_CLIENT_PREFIX_0 ? *cur : 'P';
          gpr_log(GPR_ERROR, "foreign peer %s: %s",
                  std::string(t->peer_string.as_string_view()).c_str(),
                  first == 0x16                    ? "TLS"
                  : first >= 'A' && first <= 'Z' ? "HTTP/1"
                                                   : "no HTTP/2");
]==])
billstream_replace([==[#include <initializer_list>
]==] [==[#include <algorithm>
#include <initializer_list>
]==])
billstream_close()

# The length of a message is looked at when it is read, and not when the message is there: four
# messages that said 1 GiB held 1 GiB. (grpc.max_receive_message_length is a filter that costs a fifth of an
# export, and looks at whole messages.)
billstream_open(src/core/ext/transport/chttp2/transport/frame_data.cc)
billstream_replace([==[  grpc_slice_buffer_add(&s->frame_storage, slice);
]==] [==[  grpc_slice_buffer_add(&s->frame_storage, slice);
  // The storage begins with a message, unless the stream is over: then what
  // was there is gone, and the rest of the frame at hand still comes.
  if (!s->read_closed && !s->seen_error && s->frame_storage.length >= 5) {
    uint8_t header[5];
    grpc_slice_buffer_copy_first_into_buffer(&s->frame_storage, 5, header);
    const uint32_t length = (static_cast<uint32_t>(header[1]) << 24) |
                            (static_cast<uint32_t>(header[2]) << 16) |
                            (static_cast<uint32_t>(header[3]) << 8) |
                            static_cast<uint32_t>(header[4]);
    if (length > t->max_message_bytes) {
      grpc_error_handle error = GRPC_ERROR_CREATE(
          absl::StrFormat("the message has %d bytes; max_message_bytes is %d",
                          length, t->max_message_bytes));
      error = grpc_error_set_int(error, grpc_core::StatusIntProperty::kStreamId,
                                 static_cast<intptr_t>(s->id));
      return grpc_error_set_int(error,
                                grpc_core::StatusIntProperty::kRpcStatus,
                                GRPC_STATUS_RESOURCE_EXHAUSTED);
    }
  }
]==])
billstream_close()

# Accept (of the kind of CVE-2023-4785, which 1.56.2 mends for EMFILE alone): any other errno ended the
# listener for ever, and nothing that is wrong with one connection may. What is wrong with the listening
# socket itself still does. And a barred peer is sent away here, before it costs anything.
billstream_open(src/core/lib/iomgr/tcp_server_posix.cc)
billstream_replace([==[#include "src/core/lib/iomgr/tcp_server.h"
]==] [==[#include "src/core/lib/iomgr/tcp_server.h"
#include "grpc-resets.h"
]==])
billstream_replace([==[      if (errno == EMFILE) {
        GRPC_LOG_EVERY_N_SEC(1, GPR_ERROR, "%s",
                             "File descriptor limit reached. Retrying.");
]==] [==[      if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ECONNABORTED &&
          errno != EBADF && errno != EFAULT && errno != EINVAL &&
          errno != ENOTSOCK && errno != EOPNOTSUPP) {
        GRPC_LOG_EVERY_N_SEC(1, GPR_ERROR,
                             "accept4: %s; trying again in a second",
                             grpc_core::StrError(errno).c_str());
]==])
billstream_replace([==[    (void)grpc_set_socket_no_sigpipe_if_possible(fd);

    err = grpc_apply_socket_mutator_in_args(fd, GRPC_FD_SERVER_CONNECTION_USAGE,
                                            sp->server->options);
    if (!err.ok()) {
      goto error;
    }
]==] [==[    if (billstream::Resets::Barred(billstream::Resets::Peer(addr))) {
      close(fd);
      continue;
    }

    (void)grpc_set_socket_no_sigpipe_if_possible(fd);

    err = grpc_apply_socket_mutator_in_args(fd, GRPC_FD_SERVER_CONNECTION_USAGE,
                                            sp->server->options);
    if (!err.ok()) {
      close(fd);
      continue;
    }
]==])
billstream_replace([==[      gpr_log(GPR_ERROR, "Invalid address: %s",
              addr_uri.status().ToString().c_str());
      goto error;
]==] [==[      gpr_log(GPR_ERROR, "Invalid address: %s",
              addr_uri.status().ToString().c_str());
      close(fd);
      continue;
]==])
billstream_replace([==[        gpr_log(GPR_ERROR, "Failed getpeername: %s",
                grpc_core::StrError(errno).c_str());
        close(fd);
        goto error;
]==] [==[        gpr_log(GPR_ERROR, "Failed getpeername: %s",
                grpc_core::StrError(errno).c_str());
        close(fd);
        continue;
]==])
billstream_close()

# Certificates that are replaced while it serves: a handshake that began as another one took new files used what
# those had freed.
billstream_open(src/core/lib/security/security_connector/ssl/ssl_security_connector.cc)
billstream_replace([==[    tsi_result result = tsi_ssl_server_handshaker_factory_create_handshaker(
        server_handshaker_factory_, /*network_bio_buf_size=*/0,
        /*ssl_bio_buf_size=*/0, &tsi_hs);
]==] [==[    tsi_result result;
    {
      grpc_core::MutexLock lock(&mu_);
      result = tsi_ssl_server_handshaker_factory_create_handshaker(
          server_handshaker_factory_, /*network_bio_buf_size=*/0,
          /*ssl_bio_buf_size=*/0, &tsi_hs);
    }
]==])
billstream_close()

# How a program learns which core it runs on: asked with an argument that any other core ignores, this
# one does not listen, and gives the number of these patches where the port would be.
billstream_open(src/core/ext/transport/chttp2/server/chttp2_server.cc)
billstream_replace([==[  if (strncmp(addr, "external:", 9) == 0) {
    return Chttp2ServerListener::CreateWithAcceptor(server, addr, args,
]==] [==[  if (args.GetBool("grpc.billstream.patches").value_or(false)) {
    *port_num = 3;
    return absl::OkStatus();
  }
  if (strncmp(addr, "external:", 9) == 0) {
    return Chttp2ServerListener::CreateWithAcceptor(server, addr, args,
]==])
billstream_close()

# Before the directory of the originals.
target_include_directories(grpc BEFORE PRIVATE "${billstream_patched_dir}" "${billstream_patches_dir}")
