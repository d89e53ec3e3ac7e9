#include "driver.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace shoal {
namespace {

/** `outKind` of a batch; 1 is to a VTEP as it is. */
constexpr uint8_t kToPort = 2;
constexpr uint8_t kToVtepSealed = 3;
/** Tags in epoll's data, above the port indexes. */
constexpr uint32_t kWakeTag = 0xffffffff;
constexpr uint32_t kReceiverTag = 0xfffffff0;
/** Each receive slot: the sender's address, room in front, the largest train. Not a power of two:
 * slots at equal cache sets would evict each other. */
constexpr uint32_t kSlotHeadBytes = 128;
constexpr uint32_t kSlotBytes = 65536;
constexpr uint32_t kSlotStride = kSlotHeadBytes + kSlotBytes + 64;
/** Bytes that one read of the underlay should bring at most: half of a usual second-level cache. */
constexpr uint32_t kReadBytesWanted = 512 * 1024;
constexpr int kTrainsWantedMin = 8;
/** How often a busy loop looks at what epoll watches, in turns. */
constexpr uint32_t kWatchTurns = 32;
/** A descriptor that was silent for so long is watched again, however busy the others are. */
constexpr int64_t kHotMicros = 2000;
/** How far polling may stretch, in multiples of what was configured. */
constexpr int64_t kStretchMax = 5;
/** Reads that found something between two sleeps: more of them are no question and answer. */
constexpr int kTalkReadsMax = 8;
/** Ahead of applications; not so far that the kernel's own packet threads (ksoftirqd, nice 0) starve
 * and the device's ring overflows. */
constexpr int kPriority = -10;
/** Inner packet of a super-frame whose segment size is unknown: as over an MTU of 1500. */
constexpr uint32_t kAssumedInnerMtu = 1450;

uint32_t alignUp(uint32_t value, uint32_t to) { return (value + to - 1) & ~(to - 1); }

/**
 * Slots lie far apart, so that with small pages nearly every datagram would miss the TLB. Only a
 * wish: without transparent huge pages things go on as they are.
 */
void wishHugePages(const BatchMemory& memory) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(memory.arena);
  const uintptr_t first = (start + page - 1) & ~(page - 1);
  const uintptr_t last = (start + memory.rowBytes) & ~(page - 1);
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

void writeSender(uint8_t* at, const sockaddr_storage* sender) {
  if (sender->ss_family == AF_INET6) {
    memcpy(at, &reinterpret_cast<const sockaddr_in6*>(sender)->sin6_addr, 16);
    return;
  }
  memset(at, 0, 10);
  memset(at + 10, 0xff, 2);
  memcpy(at + 12, &reinterpret_cast<const sockaddr_in*>(sender)->sin_addr, 4);
}

}  // namespace

Driver::Driver(const DriverConfig& config, const BatchMemory& egress, const BatchMemory& ingress,
               double* stats)
    : config_(config), egress_(egress), ingress_(ingress), stats_(stats), coalescer_(this) {
  pollMicros_ = config.busyPollMicros;
  rows_.resize(std::max(egress.rowsMax, ingress.rowsMax));
  headerBlocks_.resize(kHeaderBlocksMax * kHeaderBlockBytes);
}

Driver::~Driver() {
  for (Port& port : ports_) {
    if (port.fd >= 0) close(port.fd);
  }
  if (wakeFd_ >= 0) close(wakeFd_);
  if (epoll_ >= 0) close(epoll_);
}

const char* Driver::open() {
  wishHugePages(egress_);
  wishHugePages(ingress_);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return "epoll_create1";
  wakeFd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wakeFd_ < 0) return "eventfd";
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = kWakeTag;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, wakeFd_, &event) != 0) return "epoll_ctl";

  const int families[2] = {AF_INET, AF_INET6};
  for (int i = 0; i < 2; ++i) {
    receivers_[i] = openReceiver(families[i], config_.underlay, &stats_);
    if (!receivers_[i]) {
      // A host without IPv6 (or, one day, without IPv4) still has an underlay.
      if (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL) continue;
      return "bind";
    }
    const int slots = static_cast<int>(
        std::min<uint32_t>(Receiver::kTrainsMax, ingress_.rowBytes / kSlotStride));
    for (int slot = 0; slot < slots; ++slot)
      receivers_[i]->setSlot(slot, ingress_.arena + slot * kSlotStride + kSlotHeadBytes, kSlotBytes);
    slots_ = slots;
    trainsWanted_ = slots;
    event.data.u32 = kReceiverTag + static_cast<uint32_t>(i);
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, receivers_[i]->fd(), &event) != 0) return "epoll_ctl";
    for (uint32_t n = 0; n < config_.underlay.sourcePorts; ++n) {
      auto queue = openSender(families[i], &stats_, &vteps_);
      if (!queue) return "socket";
      queues_[i].push_back(std::move(queue));
    }
  }
  if (!receivers_[0] && !receivers_[1]) return "socket";
  return nullptr;
}

void Driver::addPort(int index, int fd) {
  if (index < 0 || index >= kPortsMax) {
    close(fd);
    return;
  }
  removePort(index);
  if (static_cast<size_t>(index) >= ports_.size()) ports_.resize(index + 1);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  ports_[index] = Port{};
  ports_[index].fd = fd;
  watch(fd, static_cast<uint32_t>(index));
}

bool Driver::watch(int fd, uint32_t tag) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = tag;
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

/**
 * What is busy is read directly until it has been silent for a while: as long as epoll watches a
 * descriptor, the kernel runs its callback for every single packet.
 */
void Driver::heatPort(int index) {
  Port& port = ports_[index];
  stretch();
  port.usedMicros = lastPacketMicros_ = turnMicros_;
  if (port.hot || config_.busyPollMicros == 0) return;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, port.fd, nullptr);
  port.hot = true;
  hotPorts_.push_back(index);
}

void Driver::heatReceiver(int which) {
  stretch();
  receiverUsedMicros_[which] = lastPacketMicros_ = turnMicros_;
  if (receiverHot_[which] || config_.busyPollMicros == 0) return;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, receivers_[which]->fd(), nullptr);
  receiverHot_[which] = true;
}

/**
 * How long to poll after the last packet: what is asked and answered comes back after the time that wakes
 * somebody elsewhere, which differs a lot between machines. Whoever falls asleep just before pays for a wake-up
 * of its own with every packet. A stream that pauses does not: there polling only takes time from the ends.
 */
void Driver::stretch() {
  ++readsSinceSleep_;
  if (isHot()) return;
  const int64_t longest = kStretchMax * config_.busyPollMicros;
  const bool wasTalk = readsSinceSleep_ <= kTalkReadsMax;
  const bool wasMissed = wasTalk && turnMicros_ - lastPacketMicros_ <= longest;
  readsSinceSleep_ = 0;
  pollMicros_ = wasMissed ? std::min(longest, 2 * pollMicros_)
                          : std::max(config_.busyPollMicros, pollMicros_ / 2);
}

/** Gives back to epoll what has been silent; it reports at once what came meanwhile. */
void Driver::coolIdle() {
  // Packets go to and fro: while any descriptor is busy, the others wait for their next one.
  const bool idle = turnMicros_ - lastPacketMicros_ > pollMicros_;
  const int64_t silentSince = idle ? INT64_MAX : turnMicros_ - kHotMicros;
  for (size_t i = 0; i < hotPorts_.size();) {
    const int index = hotPorts_[i];
    Port& port = ports_[index];
    if (port.fd >= 0 && port.hot && port.usedMicros >= silentSince) {
      ++i;
      continue;
    }
    if (port.fd >= 0 && port.hot) {
      port.hot = false;
      watch(port.fd, static_cast<uint32_t>(index));
    }
    hotPorts_[i] = hotPorts_.back();
    hotPorts_.pop_back();
  }
  for (int which = 0; which < 2; ++which) {
    if (!receiverHot_[which] || receiverUsedMicros_[which] >= silentSince) continue;
    receiverHot_[which] = false;
    watch(receivers_[which]->fd(), kReceiverTag + static_cast<uint32_t>(which));
  }
}

void Driver::removePort(int index) {
  if (portAt(index) == nullptr) return;
  if (!ports_[index].hot) epoll_ctl(epoll_, EPOLL_CTL_DEL, ports_[index].fd, nullptr);
  close(ports_[index].fd);
  ports_[index].fd = -1;
  ports_[index].hot = false;
  hotPorts_.erase(std::remove(hotPorts_.begin(), hotPorts_.end(), index), hotPorts_.end());
}

const Driver::Port* Driver::portAt(int index) const {
  if (index < 0 || static_cast<size_t>(index) >= ports_.size()) return nullptr;
  return ports_[index].fd < 0 ? nullptr : &ports_[index];
}

void Driver::setVtep(int index, const uint8_t address[16], uint16_t udpPort) {
  if (index < 0 || index >= kVtepsMax) return;
  if (static_cast<size_t>(index) >= vteps_.size()) vteps_.resize(index + 1);
  VtepAddress& vtep = vteps_[index];
  vtep = VtepAddress{};
  memset(&vtep.address, 0, sizeof vtep.address);
  static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (memcmp(address, mapped, sizeof mapped) == 0) {
    auto* to = reinterpret_cast<sockaddr_in*>(&vtep.address);
    to->sin_family = AF_INET;
    to->sin_port = htons(udpPort);
    memcpy(&to->sin_addr, address + 12, 4);
    vtep.addressLength = sizeof *to;
  } else {
    auto* to = reinterpret_cast<sockaddr_in6*>(&vtep.address);
    to->sin6_family = AF_INET6;
    to->sin6_port = htons(udpPort);
    memcpy(&to->sin6_addr, address, 16);
    vtep.addressLength = sizeof *to;
  }
  vtep.known = true;
}

void Driver::removeVtep(int index) {
  if (index >= 0 && static_cast<size_t>(index) < vteps_.size()) vteps_[index].known = false;
  seals_.setKeys(index, nullptr, 0);
}

void Driver::raisePriority() {
  // Refused without CAP_SYS_NICE, and then things go on as they are.
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kPriority);
}

int Driver::wait(int timeoutMillis) {
  turnMicros_ = nowMicros();
  if (isHot()) coolIdle();
  const bool hot = isHot();
  int found = hasTrains() ? kUnderlayReady : 0;
  readyPorts_.assign(hotPorts_.begin(), hotPorts_.end());
  if (!readyPorts_.empty()) found |= kPortsReady;
  for (int which = 0; which < 2; ++which) {
    if (!receiverHot_[which]) continue;
    receiverReady_[which] = true;
    found |= kUnderlayReady;
  }
  // Without giving way, polling would starve the very application it waits for.
  if (hot && !turnFound_) sched_yield();
  if (!hot || turns_++ % kWatchTurns == 0) found |= watched(found != 0 || hot ? 0 : timeoutMillis);
  turnFound_ = false;
  // However busy the loop is, others get a hearing.
  if (turnMicros_ - wokenMicros_ >= int64_t{timeoutMillis} * 1000) found |= kWoken;
  if ((found & kWoken) == 0) return found;
  wokenMicros_ = turnMicros_;
  for (const auto& receiver : receivers_) {
    if (receiver) receiver->countOverflows();
  }
  return found;
}

/** What epoll reports of descriptors that are not read directly. */
int Driver::watched(int timeoutMillis) {
  epoll_event events[kEventsMax];
  const int count = epoll_wait(epoll_, events, kEventsMax, timeoutMillis);
  if (timeoutMillis != 0) turnMicros_ = nowMicros();
  int found = 0;
  for (int i = 0; i < count; ++i) {
    const uint32_t tag = events[i].data.u32;
    if (tag == kWakeTag) {
      uint64_t value;
      if (::read(wakeFd_, &value, sizeof value) > 0) found |= kWoken;
    } else if (tag >= kReceiverTag) {
      receiverReady_[tag - kReceiverTag] = true;
      found |= kUnderlayReady;
    } else {
      readyPorts_.push_back(static_cast<int>(tag));
      found |= kPortsReady;
    }
  }
  return found;
}

int Driver::readPorts() {
  int rows = 0;
  uint32_t cursor = 0;
  // In turns, so that a port that floods costs the others no more than its share of a batch.
  while (rows < kFramesMax && !readyPorts_.empty()) {
    size_t kept = 0;
    for (size_t i = 0; i < readyPorts_.size(); ++i) {
      const int index = readyPorts_[i];
      if (rows >= kFramesMax) break;
      if (readPort(index, std::min(kFramesPerPort, kFramesMax - rows), &rows, &cursor))
        readyPorts_[kept++] = index;
      if (cursor == UINT32_MAX) break;
    }
    if (rows >= kFramesMax || cursor == UINT32_MAX) break;
    readyPorts_.resize(kept);
  }
  readyPorts_.clear();
  if (rows > 0) turnFound_ = true;
  return rows;
}

/** True if the port may have more. `cursor` becomes UINT32_MAX when the arena is full. */
bool Driver::readPort(int index, int framesMax, int* rows, uint32_t* cursor) {
  const Port* port = portAt(index);
  if (port == nullptr) return false;
  for (int n = 0; n < framesMax; ++n) {
    // Frames lie densely, whatever their size: small ones of one batch share few cache lines.
    const uint32_t offset = alignUp(*cursor + kHeadroomBytes + kVnetBytes, 64);
    if (offset + kFrameBytesMax > egress_.rowBytes) {
      *cursor = UINT32_MAX;
      return true;
    }
    uint8_t* at = egress_.arena + offset - kVnetBytes;
    const ssize_t length = ::read(port->fd, at, kVnetBytes + kFrameBytesMax);
    if (length < 0 && errno == EINTR) continue;
    if (length < static_cast<ssize_t>(kVnetBytes)) {
      // The device was deleted: an epoll that goes on to report it would never sleep again.
      if (length < 0 && errno == EBADFD) removePort(index);
      return false;
    }
    VnetHeader vnet;
    memcpy(&vnet, at, sizeof vnet);
    const int row = (*rows)++;
    const uint32_t frameLength = static_cast<uint32_t>(length) - kVnetBytes;
    egress_.rowOffset[row] = static_cast<int32_t>(offset);
    egress_.rowLength[row] = static_cast<int32_t>(frameLength);
    egress_.rowPort[row] = index;
    egress_.rowGsoType[row] = vnet.gsoType & ~kGsoEcn;
    egress_.rowGsoSize[row] = vnet.gsoSize;
    egress_.rowFlags[row] = vnet.flags & kNeedsChecksum;
    rows_[row].offload = Offload{static_cast<uint8_t>(vnet.flags & kNeedsChecksum), vnet.gsoType,
                                 vnet.gsoSize, vnet.checksumStart, vnet.checksumOffset};
    rows_[row].headerVni = -1;
    stats_.at(Stat::kPortFramesRead) += 1;
    stats_.at(Stat::kPortBytesRead) += frameLength;
    *cursor = offset + frameLength;
    heatPort(index);
  }
  return true;
}

int Driver::readUnderlay() {
  for (int turn = 0; turn < 2 && !hasTrains(); ++turn) {
    const int which = nextReceiver_;
    nextReceiver_ ^= 1;
    if (!receiverReady_[which]) continue;
    const int count = receivers_[which]->read(trainsWanted_, trains_);
    if (count < trainsWanted_) receiverReady_[which] = false;
    trainCount_ = std::max(count, 0);
    trainNext_ = 0;
    trainAt_ = 0;
    if (trainCount_ == 0) continue;

    uint32_t bytes = 0;
    for (int i = 0; i < trainCount_; ++i) bytes += trains_[i].length;
    stats_.at(Stat::kDatagramBytesReceived) += bytes;
    // Large trains are taken few at a time, so that they are still in the cache when written.
    const uint32_t average = std::max(1u, bytes / static_cast<uint32_t>(trainCount_));
    const int wanted = static_cast<int>(kReadBytesWanted / average);
    trainsWanted_ = std::min(std::max(wanted, kTrainsWantedMin), slots_);
    heatReceiver(which);
    turnFound_ = true;
  }
  int rows = 0;
  while (hasTrains() && addRows(trains_[trainNext_], &rows)) {
    trainNext_ += 1;
    trainAt_ = 0;
  }
  return rows;
}

bool Driver::addRows(const Train& train, int* rows) {
  uint8_t* sender = train.bytes - kSlotHeadBytes;
  writeSender(sender, train.sender);
  uint32_t segment = train.segmentSize;
  if (train.joined && train.bytes[0] != kSealedMarker) {
    // A super-frame of UDP that a kernel put into a tunnel, and no wire has cut, reports its inner
    // segment size: it is one datagram all the same.
    FrameView view;
    if (train.length > kVxlanBytes && viewFrame(train.bytes + kVxlanBytes, train.length - kVxlanBytes, &view) &&
        kVxlanBytes + view.end > segment) {
      segment = train.length;
    }
  }
  for (uint32_t at = trainAt_; at < train.length; at += segment) {
    if (*rows >= static_cast<int>(ingress_.rowsMax)) {
      trainAt_ = at;
      return false;
    }
    stats_.at(Stat::kDatagramsReceived) += 1;
    if (!openRow(*rows, train.bytes + at, std::min(segment, train.length - at))) continue;
    const int row = (*rows)++;
    ingress_.rowSender[row] = static_cast<int32_t>(sender - ingress_.arena);
    describeIngressRow(row, train);
  }
  return true;
}

/** Says where a row's VXLAN datagram is. False, and counted, if it is sealed and does not open. */
bool Driver::openRow(int row, uint8_t* datagram, uint32_t length) {
  const uint32_t offset = static_cast<uint32_t>(datagram - ingress_.arena);
  if (length == 0 || datagram[0] != kSealedMarker) {
    ingress_.rowOffset[row] = static_cast<int32_t>(offset);
    ingress_.rowLength[row] = static_cast<int32_t>(length);
    ingress_.rowSealer[row] = 0;
    return true;
  }
  const int sealer = seals_.open(datagram, length);
  if (sealer < 0) {
    stats_.at(static_cast<OpenDrop>(~sealer)) += 1;
    return false;
  }
  stats_.at(Stat::kDatagramsOpened) += 1;
  ingress_.rowOffset[row] = static_cast<int32_t>(offset + kSealedHeaderBytes);
  ingress_.rowLength[row] = static_cast<int32_t>(length - kSealBytes);
  ingress_.rowSealer[row] = sealer + 1;
  return true;
}

/** Finds out whether a frame comes unfinished from a kernel that met no wire (veth). */
void Driver::describeIngressRow(int row, const Train& train) {
  const uint8_t* frame = ingress_.arena + ingress_.rowOffset[row] + kVxlanBytes;
  const uint32_t length = static_cast<uint32_t>(ingress_.rowLength[row]) - kVxlanBytes;
  Offload offload;
  FrameView view;
  if (static_cast<uint32_t>(ingress_.rowLength[row]) > kVxlanBytes &&
      viewFrame(frame, length, &view) && hasPartialChecksum(frame, view)) {
    offload.flags = kNeedsChecksum;
    offload.checksumStart = view.l4;
    offload.checksumOffset = view.protocol == kTcp ? kTcpChecksumAt : kUdpChecksumAt;
    const uint32_t headers = view.payload - view.l3;
    if (view.protocol == kTcp && view.end - view.l3 > kAssumedInnerMtu + 50) {
      offload.gsoType = view.ipv6 ? kGsoTcp6 : kGsoTcp4;
      offload.gsoSize = static_cast<uint16_t>(kAssumedInnerMtu - headers);
    } else if (view.protocol == kUdp && train.joined &&
               train.segmentSize < view.end - view.payload) {
      offload.gsoType = kGsoUdp;
      offload.gsoSize = static_cast<uint16_t>(train.segmentSize);
    }
  }
  rows_[row].offload = offload;
  rows_[row].headerVni = -1;
  ingress_.rowFlags[row] = offload.flags;
  ingress_.rowGsoType[row] = offload.gsoType;
  ingress_.rowGsoSize[row] = offload.gsoSize;
}

void Driver::performEgress(int outputs) {
  for (int i = 0; i < outputs; ++i) {
    if (!isSane(egress_, i)) continue;
    if (egress_.outKind[i] == kToPort) {
      writeToPort(egress_, i);
    } else {
      sendToVtep(egress_, true, i);
    }
  }
  flushQueues();
}

void Driver::performIngress(int outputs) {
  for (int i = 0; i < outputs; ++i) {
    if (!isSane(ingress_, i)) continue;
    if (ingress_.outKind[i] != kToPort) {
      sendToVtep(ingress_, false, i);
      continue;
    }
    const int32_t offset = ingress_.outOffset[i];
    const int row = ingress_.outRow[i];
    const Offload offload = offloadAt(ingress_, row, offset);
    coalescer_.deliver(ingress_.outTarget[i], ingress_.arena + offset,
                       static_cast<uint32_t>(ingress_.outLength[i]), offload.flags != 0,
                       offload.gsoType, offload.gsoSize);
  }
  coalescer_.flush();
  flushQueues();
}

bool Driver::isSane(const BatchMemory& batch, int output) const {
  const int64_t offset = batch.outOffset[output];
  const int64_t length = batch.outLength[output];
  return offset >= 0 && length > 0 && offset + length <= batch.arenaBytes &&
         batch.outRow[output] < static_cast<int32_t>(batch.rowsMax);
}

Offload Driver::offloadAt(const BatchMemory& batch, int row, int32_t offset) const {
  if (row < 0) return Offload{};
  Offload offload = rows_[row].offload;
  if (offload.flags == 0) return offload;
  // The offsets count from the row's own frame; the output may begin elsewhere (a tag taken off).
  const int32_t frame = batch.rowOffset[row] + (&batch == &ingress_ ? int{kVxlanBytes} : 0);
  offload.checksumStart = static_cast<uint16_t>(offload.checksumStart + (frame - offset));
  return offload;
}

/** Completes a row's checksum where it lies, once: every later output of the row is right too. */
bool Driver::finishChecksum(BatchMemory& batch, int row, int32_t offset, uint32_t length) {
  const Offload offload = offloadAt(batch, row, offset);
  if (!completeChecksum(batch.arena + offset, length, offload)) return false;
  rows_[row].offload = Offload{};
  return true;
}

SendQueue* Driver::queueFor(int vtep, uint32_t hash) {
  if (vtep < 0 || static_cast<size_t>(vtep) >= vteps_.size() || !vteps_[vtep].known)
    return nullptr;
  const auto& queues = queues_[vteps_[vtep].address.ss_family == AF_INET6 ? 1 : 0];
  if (queues.empty()) return nullptr;
  // The high bits of the product depend on all bits of the hash.
  const uint64_t bucket = (static_cast<uint64_t>(hash) * queues.size()) >> 32;
  return queues[bucket].get();
}

void Driver::sendToVtep(BatchMemory& batch, bool egress, int output) {
  const int vtep = batch.outTarget[output];
  SendQueue* queue = queueFor(vtep, batch.outHash[output]);
  if (queue == nullptr) {
    stats_.at(Stat::kDatagramSendDrops) += 1;
    return;
  }
  if (queue->isEmpty()) busyQueues_.push_back(queue);
  const int row = batch.outRow[output];
  const int32_t offset = batch.outOffset[output];
  const uint32_t length = static_cast<uint32_t>(batch.outLength[output]);
  const uint32_t vni = static_cast<uint32_t>(batch.outVni[output]);
  uint8_t* frame = batch.arena + offset;
  const bool sealed = batch.outKind[output] == kToVtepSealed;

  if (row >= 0 && rows_[row].offload.gsoType != kGsoNone) {
    sendSuperFrame(queue, vtep, frame, length, offloadAt(batch, row, offset), vni, sealed);
    return;
  }
  if (row >= 0 && rows_[row].offload.flags != 0 && !finishChecksum(batch, row, offset, length)) {
    stats_.at(Stat::kDatagramSendDrops) += 1;
    return;
  }
  if (sealed) {
    uint8_t header[kVxlanBytes];
    writeVxlan(header, vni);
    sendSealed(queue, vtep, header, kVxlanBytes, frame, length);
    return;
  }
  // An egress row's headroom is its own, and can hold the header of one segment at one place.
  if (egress && row >= 0) {
    Row& state = rows_[row];
    if (state.headerVni < 0) {
      state.headerVni = vni;
      state.headerOffset = offset;
      writeVxlan(frame - kVxlanBytes, vni);
    }
    if (state.headerVni == vni && state.headerOffset == offset) {
      queue->add(vtep, frame - kVxlanBytes, kVxlanBytes + length, nullptr, 0);
      return;
    }
  }
  uint8_t* block = headerBlock();
  writeVxlan(block, vni);
  queue->add(vtep, block, kVxlanBytes, frame, length);
}

void Driver::sendSuperFrame(SendQueue* queue, int vtep, const uint8_t* frame, uint32_t length,
                            const Offload& offload, uint32_t vni, bool sealed) {
  Segmenter segmenter;
  if (!segmenter.begin(frame, length, offload, vni)) {
    stats_.at(Stat::kDatagramSendDrops) += 1;
    return;
  }
  const uint8_t* payload;
  uint32_t payloadLength;
  uint8_t sealedBlock[kHeaderBlockBytes];
  for (;;) {
    uint8_t* block = sealed ? sealedBlock : headerBlock();
    const uint32_t headers = segmenter.next(block, &payload, &payloadLength);
    if (headers == 0) return;
    if (sealed) {
      sendSealed(queue, vtep, block, headers, payload, payloadLength);
    } else {
      queue->add(vtep, block, headers, payload, payloadLength);
    }
  }
}

/** Seals the pieces into one, which stays until the queues are flushed. */
void Driver::sendSealed(SendQueue* queue, int vtep, const uint8_t* head, uint32_t headLength,
                        const uint8_t* body, uint32_t bodyLength) {
  const uint32_t length = headLength + bodyLength + kSealBytes;
  if (sealedUsed_ + length > kSealedBytesMax) drainQueues();
  if (sealed_.empty()) sealed_.resize(kSealedBytesMax);
  uint8_t* to = &sealed_[sealedUsed_];
  if (!seals_.seal(vtep, head, headLength, body, bodyLength, to)) {
    stats_.at(Stat::kSealDrops) += 1;
    return;
  }
  stats_.at(Stat::kDatagramsSealed) += 1;
  queue->add(vtep, to, length, nullptr, 0);
  sealedUsed_ += alignUp(length, 16);
}

/** Room for one header until the queues are flushed, which happens here if there is none left. */
uint8_t* Driver::headerBlock() {
  if (headerBlocksUsed_ == kHeaderBlocksMax) drainQueues();
  return &headerBlocks_[kHeaderBlockBytes * headerBlocksUsed_++];
}

void Driver::flushQueues() {
  drainQueues();
  busyQueues_.clear();
}

/** Sends what waits, so that its room is free; the queues stay busy, as one is about to be used. */
void Driver::drainQueues() {
  for (SendQueue* queue : busyQueues_) queue->flush();
  headerBlocksUsed_ = 0;
  sealedUsed_ = 0;
}

/** Delivery between two local ports: the super-frame or partial checksum stays as it is. */
void Driver::writeToPort(const BatchMemory& batch, int output) {
  const int32_t offset = batch.outOffset[output];
  const Offload offload = offloadAt(batch, batch.outRow[output], offset);
  VnetHeader header{offload.flags, offload.gsoType, 0, offload.gsoSize, offload.checksumStart,
                    offload.checksumOffset};
  if (offload.flags == 0) header = VnetHeader{0, kGsoNone, 0, 0, 0, 0};
  const uint32_t length = static_cast<uint32_t>(batch.outLength[output]);
  if (offload.gsoType != kGsoNone) {
    const uint32_t tcpHeader = (batch.arena[offset + offload.checksumStart + 12] >> 4) * 4u;
    const bool udp = (offload.gsoType & ~kGsoEcn) == kGsoUdp;
    header.headerLength = static_cast<uint16_t>(offload.checksumStart + (udp ? 8 : tcpHeader));
  }
  iovec piece{batch.arena + offset, length};
  write(batch.outTarget[output], header, &piece, 1);
}

bool Driver::takesUdpSegments(int index) const {
  const Port* port = portAt(index);
  return port != nullptr && port->udpSegments;
}

bool Driver::write(int index, const VnetHeader& header, iovec* pieces, int count) {
  const Port* port = portAt(index);
  if (port == nullptr) {
    stats_.at(Stat::kPortWriteDrops) += 1;
    return true;
  }
  iovec all[160];
  all[0] = {const_cast<VnetHeader*>(&header), sizeof header};
  for (int i = 0; i < count; ++i) all[i + 1] = pieces[i];
  const ssize_t written = writev(port->fd, all, count + 1);
  if (written >= 0) {
    stats_.at(Stat::kPortFramesWritten) += 1;
    stats_.at(Stat::kPortBytesWritten) += static_cast<double>(written) - kVnetBytes;
    return true;
  }
  if (errno == EINVAL && header.gsoType == kGsoUdp && count > 1) {
    // Kernels before 6.2 take no UDP super-frames.
    ports_[index].udpSegments = false;
    return false;
  }
  stats_.at(Stat::kPortWriteDrops) += 1;
  return true;
}

}  // namespace shoal
