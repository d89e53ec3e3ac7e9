#include "proxy.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace shoal {
namespace {

/** A thread with so many flows more than another one leaves new ones to that. */
constexpr int kUnevenMax = 16;

/** Descriptors that are left to the rest of the process. */
constexpr int64_t kDescriptorsKept = 1024;

}  // namespace

int32_t Supply::take(bool* isLow, int32_t* connectMillis) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (next_ == backends_.size()) return 0;
  const int32_t backend = backends_[next_++];
  *connectMillis = connectMillis_;
  *isLow = !isLow_ && next_ >= lowAt_;
  isLow_ = isLow_ || *isLow;
  return backend;
}

void Supply::give(const int32_t* backends, uint32_t count, int32_t connectMillis) {
  std::lock_guard<std::mutex> lock(mutex_);
  backends_.erase(backends_.begin(), backends_.begin() + static_cast<ptrdiff_t>(next_));
  next_ = 0;
  backends_.insert(backends_.end(), backends, backends + count);
  lowAt_ = (backends_.size() + 1) / 2;
  isLow_ = backends_.empty();
  connectMillis_ = connectMillis;
}

std::vector<int32_t> Supply::withdraw() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<int32_t> left(backends_.begin() + static_cast<ptrdiff_t>(next_), backends_.end());
  backends_.clear();
  next_ = 0;
  isLow_ = true;
  return left;
}

Proxy::Proxy(ProxyConfig config) : config_(std::move(config)) {
  backends_.resize(static_cast<size_t>(config_.backendsMax) + 1);
}

Proxy::~Proxy() { stop(); }

bool Proxy::open() {
  rlimit descriptors;
  if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0 && descriptors.rlim_cur != RLIM_INFINITY) {
    // Flows of datagrams have one each, connections two.
    const int64_t free = static_cast<int64_t>(descriptors.rlim_cur) - kDescriptorsKept;
    config_.datagramFlowsMax =
        static_cast<int>(std::clamp<int64_t>(free / 4, 1, config_.datagramFlowsMax));
    const int64_t left = free - config_.datagramFlowsMax;
    config_.flowsMax = static_cast<int>(std::clamp<int64_t>(left / 2, 1, config_.flowsMax));
  }
  shares_ = std::make_unique<ClientShares>(randomSeed(), config_.flowsMax);
  datagrams_ = std::make_unique<DatagramRelay>(this, config_.threads, config_.datagramFlowsMax,
                                               config_.datagramIdleNanos);
  for (int i = 0; i < config_.threads; ++i) {
    threads_.push_back(std::make_unique<ProxyThread>(this, i));
    if (!threads_.back()->open()) return false;
  }
  for (auto& thread : threads_) thread->start();
  return true;
}

void Proxy::stop() {
  if (isStopped_) return;
  isStopped_ = true;
  std::vector<int> numbers;
  for (const auto& entry : listeners_) numbers.push_back(entry.first);
  for (int number : numbers) unlisten(number);
  for (auto& thread : threads_) thread->stop();
  if (datagrams_ != nullptr) datagrams_->stop();
}

std::vector<int32_t> Proxy::listen(int number, uint16_t port, const std::vector<Place>& places) {
  std::unique_lock<std::shared_mutex> lock(listenersMutex_);
  std::unique_ptr<Listener>& listener = listeners_[number];
  if (listener == nullptr) {
    listener = std::make_unique<Listener>();
    listener->number = number;
  }
  // First those that are left, which may be in the way of others.
  for (const PlacedSocket& socket : takeMisplaced(&listener->sockets, places)) stopListening(socket);
  std::vector<int32_t> results;
  for (const Place& place : places)
    results.push_back(hasPlace(listener->sockets, place) ? 0
                                                         : listenAlso(listener.get(), place, port));
  return results;
}

int Proxy::listenAlso(Listener* listener, const Place& place, uint16_t port) {
  const int fd = listenAt(place, port, config_.backlog);
  if (fd < 0) return fd;
  for (auto& thread : threads_)
    if (!thread->watchListener(listener->number, fd)) {
      const int error = errno;
      close(fd);
      return -error;
    }
  listener->sockets.push_back({place, fd});
  return 0;
}

void Proxy::stopListening(const PlacedSocket& socket) {
  for (auto& thread : threads_) thread->forgetListener(socket.fd);
  close(socket.fd);
}

std::vector<int32_t> Proxy::unlisten(int number) {
  std::unique_lock<std::shared_mutex> lock(listenersMutex_);
  const auto found = listeners_.find(number);
  if (found == listeners_.end()) {
    lock.unlock();
    return datagrams_->unlisten(number);
  }
  for (const PlacedSocket& socket : found->second->sockets) stopListening(socket);
  std::vector<int32_t> left = found->second->supply.withdraw();
  listeners_.erase(found);
  return left;
}

Listener* Proxy::listenerAt(int number) {
  const auto found = listeners_.find(number);
  return found == listeners_.end() ? nullptr : found->second.get();
}

void Proxy::give(int number, const int32_t* backends, uint32_t count, int32_t connectMillis) {
  std::shared_lock<std::shared_mutex> lock(listenersMutex_);
  Supply* supply = supplyOf(number);
  if (supply != nullptr) supply->give(backends, count, connectMillis);
}

std::vector<int32_t> Proxy::withdraw(int number) {
  std::shared_lock<std::shared_mutex> lock(listenersMutex_);
  Supply* supply = supplyOf(number);
  return supply == nullptr ? std::vector<int32_t>() : supply->withdraw();
}

Supply* Proxy::supplyOf(int number) {
  Listener* listener = listenerAt(number);
  return listener == nullptr ? datagrams_->supplyOf(number) : &listener->supply;
}

bool Proxy::setBackend(int32_t id, Backend backend) {
  if (id < 1 || static_cast<size_t>(id) >= backends_.size()) return false;
  backends_[static_cast<size_t>(id)] = std::make_unique<Backend>(std::move(backend));
  return true;
}

void Proxy::removeBackend(int32_t id) {
  if (id >= 1 && static_cast<size_t>(id) < backends_.size())
    backends_[static_cast<size_t>(id)].reset();
}

const Backend* Proxy::backendAt(int32_t id) const {
  return id >= 1 && static_cast<size_t>(id) < backends_.size()
             ? backends_[static_cast<size_t>(id)].get()
             : nullptr;
}

void Proxy::answer(const int32_t* rows, uint32_t count) {
  uint64_t nudged = 0;
  for (uint32_t i = 0; i < count; ++i, rows += 4) {
    const uint32_t flow = static_cast<uint32_t>(rows[0]);
    const size_t thread = flow >> 26;
    const int32_t slot = static_cast<int32_t>(flow & ((1u << 26) - 1));
    const uint32_t generation = static_cast<uint32_t>(rows[1]);
    if (thread > threads_.size()) continue;
    if (thread == threads_.size())
      datagrams_->answer(slot, generation, rows[2]);
    else
      threads_[thread]->answer(slot, generation, rows[2], rows[3]);
    nudged |= 1ull << thread;
  }
  for (size_t i = 0; i < threads_.size(); ++i)
    if (nudged & 1ull << i) threads_[i]->nudge();
  if (nudged & 1ull << threads_.size()) datagrams_->nudge();
}

void Proxy::resetBackend(int32_t id) {
  for (auto& thread : threads_) {
    thread->resetBackend(id);
    thread->nudge();
  }
}

void Proxy::leaveBackend(int32_t id) {
  datagrams_->leaveBackend(id);
  datagrams_->nudge();
}

uint32_t Proxy::take(Report* to, uint32_t most) {
  uint32_t count = 0;
  for (auto& thread : threads_)
    if (count < most) count += thread->take(to + count, most - count);
  if (count < most) count += datagrams_->take(to + count, most - count);
  return count;
}

bool Proxy::admit(const Endpoint& client) {
  if (!shares_->take(client)) return false;
  if (flowCount_.fetch_add(1, std::memory_order_relaxed) < config_.flowsMax) return true;
  leave(client);
  return false;
}

void Proxy::leave(const Endpoint& client) {
  flowCount_.fetch_sub(1, std::memory_order_relaxed);
  shares_->leave(client);
}

ProxyThread* Proxy::threadFor(ProxyThread* own) {
  ProxyThread* least = own;
  for (auto& thread : threads_)
    if (thread->flowCount() < least->flowCount()) least = thread.get();
  return own->flowCount() - least->flowCount() > kUnevenMax ? least : own;
}

void Proxy::wake() {
  if (!isWaking_.exchange(true)) config_.wake();
}

}  // namespace shoal
