// One thread of the proxy: its loop, and a flow's life from being accepted to its end.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "proxy.h"

namespace shoal {
namespace {

constexpr int kEventsMax = 256;
constexpr uint32_t kAllEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
/** Connections accepted from one port before the flows have their turn. */
constexpr int kAcceptsPerTurn = 32;
/** Connecting flows are looked at no more often. */
constexpr int64_t kExpireNanos = 50'000'000;
/**
 * Tags in epoll's data: above, the generation, or a listener's descriptor; below, two bits of kind, one of
 * side and 29 of the flow's slot or the listener's number.
 */
constexpr uint64_t kSlotMask = (1u << 29) - 1;
constexpr uint64_t kSideBit = 1u << 29;
constexpr uint64_t kListenerBit = 1u << 30;
constexpr uint64_t kWakeBit = 1u << 31;

int openSpare() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

}  // namespace

ProxyThread::ProxyThread(Proxy* proxy, int index) : proxy_(proxy), reports_(index) {}

ProxyThread::~ProxyThread() {
  for (const auto& pipe : pipes_) {
    close(pipe.first);
    close(pipe.second);
  }
  for (int fd : {epoll_, wakeFd_, spareFd_})
    if (fd >= 0) close(fd);
}

bool ProxyThread::open() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wakeFd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  spareFd_ = openSpare();
  buffer_ = std::make_unique<uint8_t[]>(kCopyBytes);
  return epoll_ >= 0 && wakeFd_ >= 0 && watch(wakeFd_, kWakeBit, EPOLLIN | EPOLLET, EPOLL_CTL_ADD);
}

void ProxyThread::start() {
  thread_ = std::thread([this] { run(); });
}

void ProxyThread::stop() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard<std::mutex> lock(commandsMutex_);
    commands_.push_back({Command::kStop, 0, 0, 0, 0, -1, Endpoint()});
  }
  nudge();
  thread_.join();
}

bool ProxyThread::watch(int fd, uint64_t tag, uint32_t events, int operation) {
  epoll_event event;
  event.events = events;
  event.data.u64 = tag;
  return epoll_ctl(epoll_, operation, fd, &event) == 0;
}

uint64_t ProxyThread::tagOf(const Flow& flow, int side) const {
  return static_cast<uint64_t>(flow.generation) << 32 | (side == kBackend ? kSideBit : 0) |
         static_cast<uint32_t>(flow.slot);
}

// --- From other threads ---

bool ProxyThread::watchListener(int number, int fd) {
  const uint64_t tag =
      static_cast<uint64_t>(fd) << 32 | kListenerBit | static_cast<uint32_t>(number);
  return watch(fd, tag, EPOLLIN | EPOLLEXCLUSIVE, EPOLL_CTL_ADD);
}

void ProxyThread::forgetListener(int fd) { epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

void ProxyThread::answer(int32_t slot, uint32_t generation, int32_t backend,
                         int32_t connectMillis) {
  std::lock_guard<std::mutex> lock(commandsMutex_);
  commands_.push_back({Command::kAnswer, slot, generation, backend, connectMillis, -1, Endpoint()});
}

void ProxyThread::resetBackend(int32_t backend) {
  std::lock_guard<std::mutex> lock(commandsMutex_);
  commands_.push_back({Command::kReset, 0, 0, backend, 0, -1, Endpoint()});
}

void ProxyThread::adopt(int fd, int32_t listener, const Endpoint& client) {
  std::lock_guard<std::mutex> lock(commandsMutex_);
  commands_.push_back({Command::kAdopt, listener, 0, 0, 0, fd, client});
}

void ProxyThread::nudge() {
  if (isNudged_.exchange(true)) return;
  const uint64_t one = 1;
  if (write(wakeFd_, &one, sizeof one) < 0) isNudged_.store(false);
}

// --- The loop ---

void ProxyThread::run() {
  epoll_event events[kEventsMax];
  int64_t busyUntilNanos = 0;
  while (!isStopping_) {
    nowNanos_ = monotonicNanos();
    const bool isBusy = !again_.empty() || nowNanos_ < busyUntilNanos;
    const int count =
        epoll_wait(epoll_, events, kEventsMax, isBusy ? 0 : timeoutMillis(nowNanos_));
    nowNanos_ = monotonicNanos();
    if (count > 0 && proxy_->config().busyPollNanos > 0)
      busyUntilNanos = nowNanos_ + proxy_->config().busyPollNanos;
    for (int i = 0; i < count; ++i) onEvent(events[i].data.u64, events[i].events);
    goOn();
    if (isNudged_.load(std::memory_order_acquire)) runCommands();
    expire(nowNanos_);
    tellSilent();
    publish();
  }
  // Connections that another thread has left to this one.
  runCommands();
  for (auto& chunk : chunks_)
    for (int i = 0; i < kFlowsPerChunk; ++i)
      if (chunk[i].state != FlowState::kFree) reset(&chunk[i], FlowEnd::kBackendGone);
  publish();
}

/** The next turn of flows that had enough for one. */
void ProxyThread::goOn() {
  if (again_.empty()) return;
  std::vector<std::pair<int32_t, uint32_t>> turns;
  turns.swap(again_);
  for (const auto& turn : turns) {
    Flow* flow = flowAt(turn.first, turn.second);
    if (flow != nullptr) onRelaying(flow, kClient, 0);
  }
}

int ProxyThread::timeoutMillis(int64_t nowNanos) const {
  int64_t due = proxy_->isWaking() ? INT64_MAX : reports_.dueNanos();
  due = std::min(due, expireNanos_);
  if (asked_.first() >= 0)
    due = std::min(due, at(asked_.first())->askedNanos + proxy_->config().silenceNanos);
  if (due == INT64_MAX) return -1;
  return static_cast<int>(std::clamp<int64_t>((due - nowNanos + 999'999) / 1'000'000, 0, 60'000));
}

void ProxyThread::onEvent(uint64_t tag, uint32_t events) {
  if (tag & kWakeBit) {
    uint64_t ignored;
    while (read(wakeFd_, &ignored, sizeof ignored) > 0) {
    }
    return;
  }
  const int32_t number = static_cast<int32_t>(tag & kSlotMask);
  if (tag & kListenerBit) {
    acceptFrom(number, static_cast<int>(tag >> 32));
    return;
  }
  Flow* flow = flowAt(number, static_cast<uint32_t>(tag >> 32));
  if (flow == nullptr) return;
  const int side = tag & kSideBit ? kBackend : kClient;
  if (flow->state == FlowState::kRelaying)
    onRelaying(flow, side, events);
  else if (flow->state == FlowState::kConnecting && side == kBackend)
    onConnecting(flow, events);
}

void ProxyThread::runCommands() {
  isNudged_.store(false);
  std::vector<Command> commands;
  {
    std::lock_guard<std::mutex> lock(commandsMutex_);
    commands.swap(commands_);
  }
  for (const Command& command : commands) obey(command);
}

void ProxyThread::obey(const Command& command) {
  switch (command.kind) {
    case Command::kAnswer: {
      Flow* flow = flowAt(command.slot, command.generation);
      if (flow == nullptr || flow->state != FlowState::kAsking) return;
      if (command.backend != 0)
        connectTo(flow, command.backend, command.connectMillis, firstWay(*flow));
      else
        reset(flow, flow->wasRefused ? FlowEnd::kUnreachable : FlowEnd::kNoBackend);
      return;
    }
    case Command::kReset:
      for (auto& chunk : chunks_)
        for (int i = 0; i < kFlowsPerChunk; ++i) {
          Flow& flow = chunk[i];
          if (flow.backend != command.backend) continue;
          if (flow.state == FlowState::kRelaying) reset(&flow, FlowEnd::kBackendGone);
          if (flow.state == FlowState::kConnecting) onRefused(&flow);
        }
      return;
    case Command::kAdopt: {
      std::shared_lock<std::shared_mutex> lock(proxy_->listenersMutex());
      begin(command.fd, command.slot, command.client, proxy_->listenerAt(command.slot));
      return;
    }
    case Command::kStop:
      isStopping_ = true;
      return;
  }
}

void ProxyThread::publish() {
  if (reports_.publish(nowNanos_)) proxy_->wake();
}

Report* ProxyThread::tell(Told what, const Flow& flow) {
  return reports_.add(what, flow.listener, flow.backend, flow.slot, flow.generation);
}

// --- A flow begins ---

void ProxyThread::acceptFrom(int number, int listenerFd) {
  // Held against its being closed meanwhile, which waits.
  std::shared_lock<std::shared_mutex> lock(proxy_->listenersMutex());
  Listener* listener = proxy_->listenerAt(number);
  if (listener == nullptr) return;
  // The number of a socket that was closed may be another's by now.
  const bool isListening =
      std::any_of(listener->sockets.begin(), listener->sockets.end(),
                  [=](const PlacedSocket& socket) { return socket.fd == listenerFd; });
  if (!isListening) return;
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage peer;
    socklen_t length = sizeof peer;
    const int fd = accept4(listenerFd, reinterpret_cast<sockaddr*>(&peer), &length,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if (errno == EMFILE || errno == ENFILE) refuseOne(listenerFd, number);
      return;
    }
    const Endpoint client = Endpoint::of(peer);
    ProxyThread* thread = proxy_->threadFor(this);
    if (thread == this) {
      begin(fd, number, client, listener);
    } else {
      thread->adopt(fd, number, client);
      thread->nudge();
    }
  }
}

/** Without a descriptor nothing can be accepted, and what waits would wake this thread for ever. */
void ProxyThread::refuseOne(int listenerFd, int number) {
  if (spareFd_ >= 0) close(spareFd_);
  const int fd = accept4(listenerFd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) closeHard(fd);
  spareFd_ = openSpare();
  Flow nobody;
  nobody.listener = number;
  tell(Told::kAccepted, nobody);
  tell(Told::kEnded, nobody)->detail = static_cast<int32_t>(FlowEnd::kLimit);
}

void ProxyThread::begin(int fd, int32_t number, const Endpoint& client, Listener* listener) {
  Flow* flow = proxy_->admit(client) ? newFlow() : nullptr;
  if (flow == nullptr) {
    closeHard(fd);
    Flow nobody;
    nobody.listener = number;
    tell(Told::kAccepted, nobody);
    tell(Told::kEnded, nobody)->detail = static_cast<int32_t>(FlowEnd::kLimit);
    return;
  }
  flow->listener = number;
  flow->client = client;
  flow->sides[kClient].fd = fd;
  Report* report = tell(Told::kAccepted, *flow);
  report->clientPort = client.port();
  client.writeAddress(report->client);
  bool isLow = false;
  int32_t connectMillis = 0;
  const int32_t backend =
      listener == nullptr ? 0 : listener->supply.take(&isLow, &connectMillis);
  if (isLow) {
    tell(Told::kLow, *flow);
    reports_.urge();
  }
  if (backend == 0)
    ask(flow);
  else
    connectTo(flow, backend, connectMillis, firstWay(*flow));
}

Flow* ProxyThread::newFlow() {
  if (freeSlots_.empty()) {
    const int32_t first = static_cast<int32_t>(chunks_.size()) * kFlowsPerChunk;
    chunks_.push_back(std::make_unique<Flow[]>(kFlowsPerChunk));
    for (int i = kFlowsPerChunk - 1; i >= 0; --i) {
      chunks_.back()[i].slot = first + i;
      freeSlots_.push_back(first + i);
    }
  }
  const int32_t slot = freeSlots_.back();
  freeSlots_.pop_back();
  Flow* flow = at(slot);
  const uint32_t generation = flow->generation + 1;
  *flow = Flow();
  flow->slot = slot;
  flow->generation = generation;
  flow->state = FlowState::kAsking;
  flowCount_.fetch_add(1, std::memory_order_relaxed);
  return flow;
}

Flow* ProxyThread::flowAt(int32_t slot, uint32_t generation) {
  if (slot < 0 || static_cast<size_t>(slot) >= chunks_.size() * kFlowsPerChunk) return nullptr;
  Flow* flow = at(slot);
  return flow->state != FlowState::kFree && flow->generation == generation ? flow : nullptr;
}

void ProxyThread::ask(Flow* flow) {
  flow->state = FlowState::kAsking;
  flow->backend = 0;
  Report* report = tell(Told::kAsks, *flow);
  report->clientPort = flow->client.port();
  report->detail = flow->wasRefused ? 1 : 0;
  flow->client.writeAddress(report->client);
  reports_.urge();
}

// --- It is connected ---

void ProxyThread::connectTo(Flow* flow, int32_t id, int32_t connectMillis, Way way) {
  flow->backend = id;
  const Backend* backend = proxy_->backendAt(id);
  flow->way = way;
  const int fd = backend == nullptr
                     ? -ENETUNREACH
                     : beginConnect(*backend, flow->client, nowNanos_, &flow->way);
  if (fd < 0) {
    if (isOwnFault(-fd))
      reset(flow, FlowEnd::kLimit);
    else
      onRefused(flow);
    return;
  }
  flow->sides[kBackend].fd = fd;
  flow->state = FlowState::kConnecting;
  flow->startedNanos = nowNanos_;
  flow->connectByNanos = nowNanos_ + connectMillis * 1'000'000LL;
  queueConnecting(flow);
  if (!watch(fd, tagOf(*flow, kBackend), kAllEvents, EPOLL_CTL_ADD))
    reset(flow, FlowEnd::kLimit);
}

void ProxyThread::onConnecting(Flow* flow, uint32_t events) {
  if (events & (EPOLLERR | EPOLLHUP)) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(flow->sides[kBackend].fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (flow->way != Way::kOwn)
      againOtherwise(flow, error);
    else if (isOwnFault(error))
      reset(flow, FlowEnd::kLimit);
    else
      onRefused(flow);
    return;
  }
  if (!(events & EPOLLOUT)) return;
  const uint32_t generation = flow->generation;
  onConnected(flow);
  // It may have spoken first.
  if (flowAt(flow->slot, generation) != nullptr && (events & EPOLLIN))
    onRelaying(flow, kBackend, events);
}

/**
 * From the client's address it was refused: because another node speaks from it and its port already, or nobody
 * listens there by IPv6, which this node's own address shows.
 */
void ProxyThread::againOtherwise(Flow* flow, int error) {
  const Backend* backend = proxy_->backendAt(flow->backend);
  const bool isApart = backend != nullptr && isTakenApart(*backend, flow->client);
  Way next = Way::kOwn;
  if (error == ECONNREFUSED && flow->way == Way::kClient) next = Way::kClientAnyPort;
  if (error == ECONNREFUSED && flow->way == Way::kClientAnyPort && isApart) next = Way::kOwn6;
  flow->wasRefused6 = flow->way == Way::kOwn6 && error == ECONNREFUSED;
  const int32_t leftMillis =
      static_cast<int32_t>((flow->connectByNanos - nowNanos_) / 1'000'000LL);
  unqueueConnecting(flow);
  close(flow->sides[kBackend].fd);
  flow->sides[kBackend] = Side();
  flow->state = FlowState::kAsking;
  connectTo(flow, flow->backend, leftMillis > 1 ? leftMillis : 1, next);
}

/** The client has sent nothing to anybody yet, so nothing is lost by asking another backend. */
void ProxyThread::onRefused(Flow* flow) {
  // After silence the way back may be what is wrong: the next one is not to be lost by it too.
  flow->isPlain |= flow->way == Way::kClient || flow->way == Way::kClientAnyPort;
  flow->wasRefused6 = false;
  if (flow->state == FlowState::kConnecting) unqueueConnecting(flow);
  if (flow->sides[kBackend].fd >= 0) close(flow->sides[kBackend].fd);
  flow->sides[kBackend] = Side();
  tell(Told::kFailed, *flow)->detail = 1;
  flow->wasRefused = true;
  ask(flow);
}

void ProxyThread::onConnected(Flow* flow) {
  unqueueConnecting(flow);
  tell(Told::kConnected, *flow)->numbers[0] =
      static_cast<double>(nowNanos_ - flow->startedNanos) / 1e6;
  flow->state = FlowState::kRelaying;
  noteFamilies(*flow);
  // Whoever speaks first, has likely done so. What comes between the read and the watch is seen by the watch.
  flow->sides[kClient].readable = true;
  flow->sides[kBackend].wantsOut = true;
  introduce(flow);
  if (!relay(flow, kUp)) return;
  if (flow->directions[kUp].bytes == 0 && !flow->directions[kUp].isEnded)
    acknowledgeNow(flow->sides[kBackend].fd);
  if (!watch(flow->sides[kClient].fd, tagOf(*flow, kClient),
             flow->sides[kClient].wantsOut ? kAllEvents : kAllEvents & ~EPOLLOUT, EPOLL_CTL_ADD))
    reset(flow, FlowEnd::kLimit);
}

/** Remembers whether the backend's program listens by IPv6, if this flow has shown it. */
void ProxyThread::noteFamilies(const Flow& flow) {
  const Backend* backend = proxy_->backendAt(flow.backend);
  if (backend == nullptr || !isTakenApart(*backend, flow.client)) return;
  if (flow.way != Way::kOwn)
    backend->ipv4Only.taken();
  else if (flow.wasRefused6)
    backend->ipv4Only.refused(nowNanos_);
}

/** What lets nobody through by IPv6 is not to cost each client of it that wait. */
void ProxyThread::noteSilence(const Flow& flow) {
  const Backend* backend = proxy_->backendAt(flow.backend);
  if (backend != nullptr && flow.way != Way::kOwn && isTakenApart(*backend, flow.client))
    backend->ipv4Only.refused(nowNanos_);
}

/** Tells the backend who the client is, if it wants to be told. */
void ProxyThread::introduce(Flow* flow) {
  const Backend* backend = proxy_->backendAt(flow->backend);
  if (backend == nullptr || backend->proxyProtocol == 0) return;
  sockaddr_storage own = {};
  socklen_t length = sizeof own;
  getsockname(flow->sides[kClient].fd, reinterpret_cast<sockaddr*>(&own), &length);
  uint8_t header[kProxyHeaderMax];
  const uint32_t bytes =
      writeProxyHeader(header, backend->proxyProtocol, SOCK_STREAM, flow->client, Endpoint::of(own));
  hold(&flow->directions[kUp], header, bytes);
}

void ProxyThread::queueConnecting(Flow* flow) {
  connecting_.append(flow, finder());
  expireNanos_ = std::min(expireNanos_, flow->connectByNanos);
}

void ProxyThread::unqueueConnecting(Flow* flow) {
  connecting_.remove(flow, finder());
  if (connecting_.first() < 0) expireNanos_ = INT64_MAX;
}

/** Looks at all of them, but not often. */
void ProxyThread::expire(int64_t nowNanos) {
  if (nowNanos < expireNanos_) return;
  int64_t nextNanos = INT64_MAX;
  for (int32_t slot = connecting_.first(); slot >= 0;) {
    Flow* flow = at(slot);
    slot = flow->after;
    if (flow->connectByNanos <= nowNanos) {
      noteSilence(*flow);
      onRefused(flow);
    } else {
      nextNanos = std::min(nextNanos, flow->connectByNanos);
    }
  }
  expireNanos_ = nextNanos == INT64_MAX ? nextNanos : std::max(nextNanos, nowNanos + kExpireNanos);
}

// --- It ends ---

/** Ends the flow with a reset to both sides. */
void ProxyThread::reset(Flow* flow, FlowEnd end) {
  if (end == FlowEnd::kBackendReset && !flow->hasAnswer && !flow->wasSilent) tell(Told::kFailed, *flow);
  if (flow->state == FlowState::kConnecting) {
    unqueueConnecting(flow);
    if (flow->sides[kBackend].fd >= 0) close(flow->sides[kBackend].fd);
    flow->sides[kBackend].fd = -1;
  }
  for (Side& side : flow->sides) {
    if (side.fd >= 0) closeHard(side.fd);
    side.fd = -1;
  }
  finish(flow, end);
}

bool ProxyThread::finishIfDone(Flow* flow) {
  const Direction* directions = flow->directions;
  if (!directions[kUp].isOver || !directions[kDown].isOver) return false;
  if (directions[kUp].isBlocked() || directions[kDown].isBlocked()) return false;
  noteAnswer(flow);
  for (Side& side : flow->sides) {
    close(side.fd);
    side.fd = -1;
  }
  finish(flow, FlowEnd::kClosed);
  return true;
}

void ProxyThread::finish(Flow* flow, FlowEnd end) {
  asked_.remove(flow, finder());
  // Before it is told: whoever hears of it may count on the room.
  proxy_->leave(flow->client);
  Report* report = tell(Told::kEnded, *flow);
  report->detail = static_cast<int32_t>(end);
  report->numbers[0] = static_cast<double>(flow->directions[kUp].bytes);
  report->numbers[1] = static_cast<double>(flow->directions[kDown].bytes);
  for (Direction& direction : flow->directions) {
    free(direction.held);
    direction.held = nullptr;
    givePipe(&direction);
  }
  flow->state = FlowState::kFree;
  flow->backend = 0;
  freeSlots_.push_back(flow->slot);
  flowCount_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace shoal
