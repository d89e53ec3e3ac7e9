// How bytes get from one side of a flow to the other: copied while they are few, spliced while they are many.
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "proxy.h"

namespace shoal {
namespace {

/** Steps of one direction before the other flows have their turn. */
constexpr int kStepsPerTurn = 16;
constexpr uint32_t kSpliceBytes = 1 << 20;
/** A pipe has a slot for each piece of memory, and a segment may be one: room for a few hundred of them. */
constexpr int kPipeBytes = 1 << 20;
/** A splice of less than this is dearer than a copy; after so many in a row there is copied again. */
constexpr uint32_t kSmallSpliceBytes = 16 * 1024;
constexpr uint8_t kSmallSplicesMax = 8;
/** Empty pipes that wait for the next flow that needs one. */
constexpr size_t kPipesKept = 32;

}  // namespace

void ProxyThread::onRelaying(Flow* flow, int side, uint32_t events) {
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) flow->sides[side].readable = true;
  if (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) flow->sides[side].hungUp = true;
  // What could not be written before, and then what can be read now.
  const int other = 1 - side;
  if (flow->directions[other].isBlocked() && !relay(flow, other)) return;
  if (!relay(flow, side)) return;
  if (flow->sides[other].readable && !flow->directions[other].isBlocked()) relay(flow, other);
}

bool ProxyThread::relay(Flow* flow, int which) {
  Direction& direction = flow->directions[which];
  for (int steps = 0; !direction.isEnded; ++steps) {
    if (steps == kStepsPerTurn) {
      again_.emplace_back(flow->slot, flow->generation);
      return true;
    }
    Step step = Step::kMoved;
    if (direction.isBlocked()) {
      step = flush(flow, which);
    } else if (direction.isOver) {
      givePipe(&direction);
      if (finishIfDone(flow)) return false;
      shutdown(flow->sides[1 - which].fd, SHUT_WR);
      direction.isEnded = true;
    } else if (!flow->sides[which].readable) {
      step = Step::kNothing;
    } else {
      step = direction.splices ? splice(flow, which) : copy(flow, which);
    }
    if (step == Step::kOver) return false;
    if (step == Step::kBlocked) return true;
    if (step == Step::kNothing) {
      // A silent flow has neither memory nor descriptors beside its two.
      givePipe(&direction);
      return true;
    }
  }
  return true;
}

/** Hands on what the receiver did not take before. */
ProxyThread::Step ProxyThread::flush(Flow* flow, int which) {
  Direction& direction = flow->directions[which];
  const int to = flow->sides[1 - which].fd;
  ssize_t sent;
  if (direction.heldBytes > 0)
    sent = send(to, direction.held + direction.heldAt, direction.heldBytes, MSG_NOSIGNAL);
  else
    sent = ::splice(direction.pipe[0], nullptr, to, nullptr, direction.pipeBytes,
                    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (sent < 0) {
    if (errno == EINTR) return Step::kMoved;
    if (errno != EAGAIN) return onWriteFailed(flow, which);
    wantOut(flow, 1 - which);
    return Step::kBlocked;
  }
  if (direction.heldBytes == 0) {
    direction.pipeBytes -= static_cast<uint32_t>(sent);
    return Step::kMoved;
  }
  direction.heldAt += static_cast<uint32_t>(sent);
  direction.heldBytes -= static_cast<uint32_t>(sent);
  if (direction.heldBytes == 0) {
    free(direction.held);
    direction.held = nullptr;
  }
  return Step::kMoved;
}

ProxyThread::Step ProxyThread::copy(Flow* flow, int which) {
  Direction& direction = flow->directions[which];
  Side& from = flow->sides[which];
  const ssize_t got = recv(from.fd, buffer_.get(), kCopyBytes, 0);
  if (got < 0) return onReadFailed(flow, which, errno);
  if (got == 0) {
    direction.isOver = true;
    return Step::kMoved;
  }
  if (which == kDown)
    noteAnswer(flow);
  else
    noteAsked(flow);
  const uint32_t count = static_cast<uint32_t>(got);
  direction.bytes += count;
  if (count < kCopyBytes) {
    direction.fullReads = 0;
    if (!from.hungUp) from.readable = false;
  } else {
    const uint32_t spliceAfter = proxy_->config().spliceAfterBytes;
    if (direction.fullReads < 255) ++direction.fullReads;
    direction.splices = spliceAfter > 0 && direction.fullReads * kCopyBytes >= spliceAfter;
  }
  // All that is left was received already, and the end comes right after it: in one segment with it.
  const int more = from.hungUp ? MSG_MORE : 0;
  const ssize_t sent = send(flow->sides[1 - which].fd, buffer_.get(), count, MSG_NOSIGNAL | more);
  if (sent == got) return Step::kMoved;
  if (sent < 0 && errno != EAGAIN && errno != EINTR) return onWriteFailed(flow, which);
  const uint32_t taken = sent < 0 ? 0 : static_cast<uint32_t>(sent);
  hold(&direction, buffer_.get() + taken, count - taken);
  wantOut(flow, 1 - which);
  return Step::kMoved;
}

/** Bytes move from socket to pipe and from there to the other socket, by reference where the kernel can. */
ProxyThread::Step ProxyThread::splice(Flow* flow, int which) {
  Direction& direction = flow->directions[which];
  Side& from = flow->sides[which];
  if (direction.pipe[0] < 0 && !takePipe(&direction)) {
    direction.splices = false;
    direction.fullReads = 0;
    return Step::kMoved;
  }
  const ssize_t got = ::splice(from.fd, nullptr, direction.pipe[1], nullptr, kSpliceBytes,
                               SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (got < 0) return onReadFailed(flow, which, errno);
  if (got == 0) {
    direction.isOver = true;
    return Step::kMoved;
  }
  if (which == kDown)
    noteAnswer(flow);
  else
    noteAsked(flow);
  direction.bytes += static_cast<uint64_t>(got);
  direction.pipeBytes = static_cast<uint32_t>(got);
  if (got >= kSmallSpliceBytes) {
    direction.smallSplices = 0;
  } else if (++direction.smallSplices >= kSmallSplicesMax) {
    direction.splices = false;
    direction.fullReads = 0;
    direction.smallSplices = 0;
  }
  return Step::kMoved;
}

ProxyThread::Step ProxyThread::onReadFailed(Flow* flow, int which, int error) {
  if (error == EINTR) return Step::kMoved;
  if (error == EAGAIN) {
    flow->sides[which].readable = false;
    return Step::kNothing;
  }
  reset(flow, which == kUp ? FlowEnd::kClientReset : FlowEnd::kBackendReset);
  return Step::kOver;
}

/**
 * The receiver broke it off. What it had sent before is handed on first, as far as that goes: a
 * server may refuse a request that it has not read to its end.
 */
ProxyThread::Step ProxyThread::onWriteFailed(Flow* flow, int which) {
  const int receiver = 1 - which;
  if (!flow->isBreaking) {
    flow->isBreaking = true;
    flow->sides[receiver].readable = true;
    if (!relay(flow, receiver)) return Step::kOver;
  }
  reset(flow, receiver == kClient ? FlowEnd::kClientReset : FlowEnd::kBackendReset);
  return Step::kOver;
}

void ProxyThread::hold(Direction* direction, const uint8_t* bytes, uint32_t count) {
  direction->held = static_cast<uint8_t*>(malloc(count));
  memcpy(direction->held, bytes, count);
  direction->heldAt = 0;
  direction->heldBytes = count;
}

bool ProxyThread::takePipe(Direction* direction) {
  if (!pipes_.empty()) {
    direction->pipe[0] = pipes_.back().first;
    direction->pipe[1] = pipes_.back().second;
    pipes_.pop_back();
    return true;
  }
  if (pipe2(direction->pipe, O_NONBLOCK | O_CLOEXEC) != 0) {
    direction->pipe[0] = direction->pipe[1] = -1;
    return false;
  }
  fcntl(direction->pipe[1], F_SETPIPE_SZ, kPipeBytes);
  return true;
}

void ProxyThread::givePipe(Direction* direction) {
  if (direction->pipe[0] < 0) return;
  if (direction->pipeBytes == 0 && pipes_.size() < kPipesKept) {
    pipes_.emplace_back(direction->pipe[0], direction->pipe[1]);
  } else {
    close(direction->pipe[0]);
    close(direction->pipe[1]);
  }
  direction->pipe[0] = direction->pipe[1] = -1;
  direction->pipeBytes = 0;
}

/** Has epoll say when the side takes more; most flows never need it. */
void ProxyThread::wantOut(Flow* flow, int side) {
  if (flow->sides[side].wantsOut) return;
  flow->sides[side].wantsOut = true;
  watch(flow->sides[side].fd, tagOf(*flow, side), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        EPOLL_CTL_MOD);
}

void ProxyThread::noteAsked(Flow* flow) {
  if (flow->hasAnswer || flow->wasSilent || asked_.has(*flow)) return;
  flow->askedNanos = nowNanos_;
  asked_.append(flow, finder());
}

void ProxyThread::noteAnswer(Flow* flow) {
  if (flow->hasAnswer) return;
  flow->hasAnswer = true;
  const bool wasAsked = asked_.has(*flow);
  asked_.remove(flow, finder());
  // It comes late, and was counted as none.
  if (flow->wasSilent) return;
  Report* report = tell(Told::kAnswered, *flow);
  if (wasAsked) report->numbers[0] = static_cast<double>(nowNanos_ - flow->askedNanos) / 1e6;
}

void ProxyThread::tellSilent() {
  while (asked_.first() >= 0) {
    Flow* flow = at(asked_.first());
    if (nowNanos_ - flow->askedNanos < proxy_->config().silenceNanos) return;
    asked_.remove(flow, finder());
    flow->wasSilent = true;
    tell(Told::kSilent, *flow);
  }
}

}  // namespace shoal
