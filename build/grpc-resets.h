// Stream resets, counted by peer: part of the patches of grpc-patches.cmake, whose sources include it.
//
// A reset costs the server more than a whole call, and the peer 26 bytes. So each peer has an
// allowance, over all its connections; one that has used it up is cut off, and may not connect again
// for a moment.

#ifndef BILLSTREAM_GRPC_RESETS_H
#define BILLSTREAM_GRPC_RESETS_H

#include <grpc/support/port_platform.h>

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

#include "src/core/lib/address_utils/parse_address.h"
#include "src/core/lib/iomgr/resolved_address.h"
#include "src/core/lib/uri/uri_parser.h"

namespace billstream {

class Resets {
 public:
  // The slot of a peer: an IPv4 address or the /64 of an IPv6 address, which is what one host has.
  // Peers that share a slot share its allowance. The hash differs from process to process, so nobody
  // can choose whose.
  static size_t Peer(const grpc_resolved_address& address) {
    const auto* ipv4 = reinterpret_cast<const sockaddr_in*>(address.addr);
    const auto* ipv6 = reinterpret_cast<const sockaddr_in6*>(address.addr);
    const char* bytes = nullptr;
    size_t length = 0;
    if (ipv4->sin_family == AF_INET) {
      bytes = reinterpret_cast<const char*>(&ipv4->sin_addr);
      length = 4;
    } else if (ipv4->sin_family == AF_INET6) {
      const bool mapped = IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr);
      bytes = reinterpret_cast<const char*>(&ipv6->sin6_addr) + (mapped ? 12 : 0);
      length = mapped ? 4 : 8;
    }
    return absl::HashOf(absl::string_view(bytes, length)) % kPeers;
  }

  // The same from the name that gRPC gives a peer, "ipv4:127.0.0.1:1234".
  static size_t Peer(absl::string_view name) {
    grpc_resolved_address address;
    memset(&address, 0, sizeof(address));
    auto uri = grpc_core::URI::Parse(name);
    if (uri.ok()) (void)grpc_parse_uri(*uri, &address);
    return Peer(address);
  }

  // Counts a reset; false when it is one too many, and the peer is barred.
  static bool Allow(size_t peer, int per_second) {
    std::atomic<int64_t>& slot = Slots()[peer];
    const int64_t now = Now();
    int64_t before = slot.load(std::memory_order_relaxed);
    bool allowed;
    int64_t after;
    do {
      after = std::max(before, now) + 1000000 / per_second;
      allowed = after <= now + kBurst;
      if (!allowed) after = now + kBurst + kBarred;
    } while (!slot.compare_exchange_weak(before, after, std::memory_order_relaxed));
    return allowed;
  }

  static bool Barred(size_t peer) {
    return Slots()[peer].load(std::memory_order_relaxed) > Now() + kBurst;
  }

 private:
  static constexpr size_t kPeers = 4096;
  // Microseconds of allowance that may be used at once: a program that ends all its streams does so
  // lawfully, and resets each.
  static constexpr int64_t kBurst = 4000000;
  // Microseconds for which a peer may not connect. Afterwards its next reset bars it again, until it
  // has been quiet for as long as it was noisy.
  static constexpr int64_t kBarred = 1000000;

  // Until when each peer's allowance is used, in microseconds of the steady clock.
  static std::atomic<int64_t>* Slots() {
    static std::atomic<int64_t> slots[kPeers];
    return slots;
  }

  static int64_t Now() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(since).count();
  }
};

}  // namespace billstream

#endif  // BILLSTREAM_GRPC_RESETS_H
