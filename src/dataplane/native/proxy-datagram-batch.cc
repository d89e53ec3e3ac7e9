// The relay's work for each batch: datagrams from clients to backends, and back.
#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>

#include "proxy.h"

namespace shoal {
namespace {

constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/** What a socket says of its backend, and not of one datagram. */
bool isRefusal(int error) {
  return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH ||
         error == EACCES || error == EHOSTDOWN || error == ENETDOWN || error == ENOPROTOOPT ||
         error == EADDRNOTAVAIL;
}

bool isNoRoom(int error) { return error == EAGAIN || error == ENOBUFS || error == ENOMEM; }

bool isLinkLocal(const uint8_t address[16]) {
  return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

bool isMulticast(const uint8_t address[16]) {
  if (memcmp(address, kMapped, sizeof kMapped) != 0) return address[0] == 0xff;
  return address[12] >> 4 == 0xe || (address[12] & address[13] & address[14] & address[15]) == 0xff;
}

}  // namespace

void DatagramRelay::Batch::arm(int first, bool withPeers) {
  for (int i = first; i < kDatagramBatch; ++i) {
    vectors[i] = {bytes.get() + static_cast<size_t>(i) * kDatagramBytesMax, kDatagramBytesMax};
    msghdr& header = messages[i].msg_hdr;
    header = {};
    header.msg_iov = &vectors[i];
    header.msg_iovlen = 1;
    if (!withPeers) continue;
    peers[i] = Endpoint();
    header.msg_name = &peers[i].any;
    header.msg_namelen = sizeof peers[i];
    header.msg_control = control[i];
    header.msg_controllen = sizeof control[i];
  }
}

// --- Up ---

void DatagramRelay::receive(DatagramPort* port, int fd) {
  // The number of a socket that was closed may be another's by now.
  const bool isBound = std::any_of(port->sockets.begin(), port->sockets.end(),
                                   [=](const PlacedSocket& socket) { return socket.fd == fd; });
  if (!isBound) return;
  up_->arm(0, true);
  const int count = recvmmsg(fd, up_->messages, kDatagramBatch, MSG_DONTWAIT, nullptr);
  if (count <= 0) return;
  DatagramFlow* flows[kDatagramBatch];
  int flowCount = 0;
  DatagramFlow* flow = nullptr;
  for (int i = 0; i < count; ++i) {
    const DatagramKey key = keyOf(i, *port);
    if (flow == nullptr || !(flow->key == key)) flow = find(port, key);
    if (flow == nullptr) {
      drop(DatagramDrop::kFlows);
      continue;
    }
    next_[i] = -1;
    flow->portFd = fd;
    if (flow->first < 0) {
      // Before another one of this batch looks for a place.
      touch(flow);
      flow->first = i;
      flows[flowCount++] = flow;
    } else {
      next_[flow->last] = i;
    }
    flow->last = i;
    flow->bytesUp += up_->messages[i].msg_len;
  }
  for (int i = 0; i < flowCount; ++i) passUp(flows[i], port);
}

DatagramKey DatagramRelay::keyOf(int index, const DatagramPort& port) const {
  DatagramKey key;
  key.port = port.number;
  key.peer = up_->peers[index];
  msghdr* header = const_cast<msghdr*>(&up_->messages[index].msg_hdr);
  for (cmsghdr* item = CMSG_FIRSTHDR(header); item != nullptr; item = CMSG_NXTHDR(header, item)) {
    if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      memcpy(&info, CMSG_DATA(item), sizeof info);
      memcpy(key.local, &info.ipi6_addr, sizeof key.local);
    } else if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      memcpy(&info, CMSG_DATA(item), sizeof info);
      memcpy(key.local, kMapped, sizeof kMapped);
      memcpy(key.local + sizeof kMapped, &info.ipi_addr, 4);
    }
  }
  // Nobody answers from such an address: the kernel chooses one.
  if (isMulticast(key.local)) memset(key.local, 0, sizeof key.local);
  return key;
}

Endpoint DatagramRelay::clientOf(const DatagramFlow& flow) {
  sockaddr_storage peer = {};
  memcpy(&peer, static_cast<const void*>(&flow.key.peer), sizeof flow.key.peer);
  return Endpoint::of(peer);
}

void DatagramRelay::passUp(DatagramFlow* flow, DatagramPort* port) {
  int indices[kDatagramBatch];
  int count = 0;
  for (int i = flow->first; i >= 0; i = next_[i]) {
    indices[count++] = i;
    up_->vectors[i].iov_len = up_->messages[i].msg_len;
  }
  flow->first = flow->last = -1;
  const uint32_t generation = flow->generation;
  if (flow->state == DatagramState::kIdle) choose(flow, port);
  if (isMisled(*flow)) {
    becomePlain(flow);
    retryPlain(flow);
  }
  // Its place may be free again, where this host had no descriptor for it.
  if (flowAt(flow->slot, generation) == nullptr) {
    drop(DatagramDrop::kFlows, static_cast<uint64_t>(count));
    return;
  }
  int done = 0;
  bool isRetried = false;
  if (flow->state == DatagramState::kOpen) {
    mmsghdr out[kDatagramBatch];
    iovec parts[kDatagramBatch];
    int held = 0;
    for (int i = 0; i < count; ++i) parts[i] = up_->vectors[indices[i]];
    if (flow->settleByNanos != 0)
      while (held < count && hold(flow, parts[held])) ++held;
    done = sendUp(flow, parts, out, count, &isRetried);
    if (done < count) done = std::max(done, held);
  }
  for (int i = done; i < count; ++i) wait(flow, up_->vectors[indices[i]]);
  if (isRetried) retryPlain(flow);
}

int DatagramRelay::sendUp(DatagramFlow* flow, const iovec* datagrams, mmsghdr* out, int count,
                          bool* isRetried) {
  iovec parts[kDatagramBatch][2];
  const bool hasHeader = flow->headerBytes > 0;
  for (int i = 0; i < count; ++i) {
    parts[i][0] = {flow->header, flow->headerBytes};
    parts[i][1] = datagrams[i];
    out[i] = {};
    out[i].msg_hdr.msg_iov = hasHeader ? parts[i] : parts[i] + 1;
    out[i].msg_hdr.msg_iovlen = hasHeader ? 2 : 1;
  }
  for (int done = 0; done < count;) {
    const int sent =
        sendmmsg(flow->fd, out + done, static_cast<unsigned>(count - done), MSG_DONTWAIT);
    if (sent > 0) {
      done += sent;
    } else if (isRefusal(errno)) {
      *isRetried = onRefused(flow, errno);
      return done;
    } else if (isNoRoom(errno)) {
      drop(DatagramDrop::kFull, static_cast<uint64_t>(count - done));
      return count;
    } else if (errno != EINTR) {
      drop(DatagramDrop::kRefused);
      done += 1;
    }
  }
  return count;
}

void DatagramRelay::wait(DatagramFlow* flow, const iovec& datagram) {
  if (!hold(flow, datagram)) drop(DatagramDrop::kWaiting);
}

/** @returns Whether there was room. */
bool DatagramRelay::hold(DatagramFlow* flow, const iovec& datagram) {
  if (flow->waiting.size() >= kWaitingMax || waitingBytes_ + datagram.iov_len > kWaitingBytesMax)
    return false;
  const uint8_t* bytes = static_cast<const uint8_t*>(datagram.iov_base);
  flow->waiting.emplace_back(bytes, bytes + datagram.iov_len);
  waitingBytes_ += datagram.iov_len;
  return true;
}

/** What has waited goes before what comes; what is refused waits on. */
void DatagramRelay::passWaiting(DatagramFlow* flow) {
  if (flow->waiting.empty()) return;
  mmsghdr out[kWaitingMax];
  iovec parts[kWaitingMax];
  int count = 0;
  for (std::vector<uint8_t>& bytes : flow->waiting) parts[count++] = {bytes.data(), bytes.size()};
  // Held until it is known whether it arrives.
  const bool isHeld = flow->settleByNanos != 0;
  bool isRetried = false;
  const int done = sendUp(flow, parts, out, count, &isRetried);
  for (int i = 0; !isHeld && i < done; ++i)
    waitingBytes_ -= flow->waiting[static_cast<size_t>(i)].size();
  if (!isHeld) flow->waiting.erase(flow->waiting.begin(), flow->waiting.begin() + done);
  if (isRetried) retryPlain(flow);
}

void DatagramRelay::dropWaiting(DatagramFlow* flow, DatagramDrop reason) {
  drop(reason, flow->waiting.size());
  for (const std::vector<uint8_t>& bytes : flow->waiting) waitingBytes_ -= bytes.size();
  flow->waiting.clear();
}

// --- Down ---

void DatagramRelay::takeReplies(DatagramFlow* flow) {
  const int fd = flow->portFd;
  // Its socket is being replaced.
  if (fd < 0) return;
  if (replies_ > 0 && (fd != replyFd_ || replies_ == kDatagramBatch)) sendReplies();
  replyFd_ = fd;
  const int count = recvmmsg(flow->fd, down_->messages + replies_,
                             static_cast<unsigned>(kDatagramBatch - replies_), MSG_DONTWAIT, nullptr);
  if (count <= 0) {
    if (isRefusal(errno) && onRefused(flow, errno)) retryPlain(flow);
    return;
  }
  touch(flow);
  settle(flow);
  if (!flow->hasAnswer) {
    tell(Told::kAnswered, *flow);
    noteFamilies(*flow);
  }
  flow->hasAnswer = true;
  flow->wasRefused = false;
  for (int i = 0; i < count; ++i) addressReply(replies_++, *flow);
  for (int i = replies_ - count; i < replies_; ++i) flow->bytesDown += down_->messages[i].msg_len;
}

/** Remembers whether the backend's program listens by IPv6, if this flow has shown it. */
void DatagramRelay::noteFamilies(const DatagramFlow& flow) {
  const Backend* backend = proxy_->backendAt(flow.backend);
  if (backend == nullptr || !isTakenApart(*backend, clientOf(flow))) return;
  if (flow.asClient)
    backend->ipv4Only.taken();
  else if (flow.wasRefused6)
    backend->ipv4Only.refused(nowNanos_);
}

/** To the client, and from the address that it asked. */
void DatagramRelay::addressReply(int index, const DatagramFlow& flow) {
  down_->vectors[index].iov_len = down_->messages[index].msg_len;
  down_->peers[index] = flow.key.peer;
  msghdr* header = &down_->messages[index].msg_hdr;
  header->msg_name = &down_->peers[index].any;
  header->msg_namelen = flow.key.peer.length();
  const DatagramKey none;
  if (memcmp(flow.key.local, none.local, sizeof none.local) == 0) return;
  header->msg_control = down_->control[index];
  header->msg_controllen = sizeof down_->control[index];
  cmsghdr* item = CMSG_FIRSTHDR(header);
  if (flow.key.peer.any.sa_family == AF_INET6) {
    in6_pktinfo info = {};
    memcpy(&info.ipi6_addr, flow.key.local, sizeof info.ipi6_addr);
    if (isLinkLocal(flow.key.local)) info.ipi6_ifindex = flow.key.peer.v6.sin6_scope_id;
    item->cmsg_level = IPPROTO_IPV6;
    item->cmsg_type = IPV6_PKTINFO;
    item->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(item), &info, sizeof info);
    header->msg_controllen = CMSG_SPACE(sizeof info);
  } else {
    in_pktinfo info = {};
    memcpy(&info.ipi_spec_dst, flow.key.local + sizeof kMapped, sizeof info.ipi_spec_dst);
    item->cmsg_level = IPPROTO_IP;
    item->cmsg_type = IP_PKTINFO;
    item->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(item), &info, sizeof info);
    header->msg_controllen = CMSG_SPACE(sizeof info);
  }
}

void DatagramRelay::sendReplies() {
  if (replies_ == 0) return;
  for (int done = 0; done < replies_;) {
    const int sent = sendmmsg(replyFd_, down_->messages + done,
                              static_cast<unsigned>(replies_ - done), MSG_DONTWAIT);
    if (sent > 0) {
      done += sent;
    } else if (isNoRoom(errno)) {
      drop(DatagramDrop::kFull, static_cast<uint64_t>(replies_ - done));
      break;
    } else if (errno != EINTR && down_->messages[done].msg_hdr.msg_controllen > 0) {
      // No address to answer from, as that of a directed broadcast, or not any more: the kernel chooses one.
      down_->messages[done].msg_hdr.msg_controllen = 0;
    } else if (errno != EINTR) {
      drop(DatagramDrop::kRefused);
      done += 1;
    }
  }
  replies_ = 0;
  down_->arm(0, false);
}

}  // namespace shoal
