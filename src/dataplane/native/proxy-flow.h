// A flow of the proxy, and what is told of it.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "proxy-socket.h"

namespace shoal {

/** Read at once; what of it the receiver does not take is held, so it bounds the memory of a stalled flow. */
constexpr uint32_t kCopyBytes = 64 * 1024;

/** What happened; native-proxy-binding.ts has the same numbers. */
enum class Told : int32_t {
  kAccepted = 1,
  /** A flow waits for `answer`. */
  kAsks = 2,
  kConnected = 3,
  kAnswered = 4,
  /** Refused, timed out, or broke off before its first byte. The flow uses it no more if `detail` is 1. */
  kFailed = 5,
  kEnded = 6,
  /** Few of the choices that were made ahead are left. */
  kLow = 7,
  /** The backend was sent something, and sent nothing for as long as `silenceNanos`. */
  kSilent = 8,
  /** The flow uses its backend no more, and lives on (datagrams). */
  kLeft = 9,
};

/** How a flow ended: the index in FLOW_ENDS of proxy-driver.ts, which has one more, told apart there. */
enum class FlowEnd : int32_t {
  kClosed = 0,
  kClientReset = 1,
  kBackendReset = 2,
  kBackendGone = 3,
  kNoBackend = 4,
  kUnreachable = 5,
  kLimit = 6,
};

/** One thing that happened, as JavaScript reads it: 64 bytes. */
struct Report {
  Told what;
  int32_t listener;
  int32_t backend;
  /** Thread and slot; with the generation it names the flow in an answer. */
  int32_t flow;
  int32_t generation;
  int32_t clientPort;
  /** An end; or 1: it was refused before. */
  int32_t detail;
  int32_t unused;
  union {
    /** Milliseconds of a connect, or from the first byte to the answer; bytes up and down of an end. */
    double numbers[4];
    uint8_t client[16];
  };
};
static_assert(sizeof(Report) == 64, "JavaScript reads reports of 64 bytes");

/** One of a flow's two sockets. */
struct Side {
  int fd = -1;
  /** There may be something to read: not since the last read that found nothing. */
  bool readable = false;
  /** The other end has said that it sends no more: short reads do not mean that all is read. */
  bool hungUp = false;
  bool wantsOut = false;
};

/** What is on its way from one side to the other. */
struct Direction {
  /** What the receiver did not take yet, in a block of its own; or else nothing. */
  uint8_t* held = nullptr;
  uint32_t heldAt = 0;
  uint32_t heldBytes = 0;
  uint32_t pipeBytes = 0;
  int pipe[2] = {-1, -1};
  uint64_t bytes = 0;
  /** Reads in a row that filled all the room there was. */
  uint8_t fullReads = 0;
  uint8_t smallSplices = 0;
  bool splices = false;
  /** The sender is done. */
  bool isOver = false;
  /** The receiver was told so. */
  bool isEnded = false;

  bool isBlocked() const { return heldBytes > 0 || pipeBytes > 0; }
};

enum class FlowState : uint8_t { kFree, kAsking, kConnecting, kRelaying };

constexpr int kClient = 0;
constexpr int kBackend = 1;
constexpr int kUp = 0;
constexpr int kDown = 1;

/** One connection of a client, and its counterpart. Direction i comes from side i. */
struct Flow {
  FlowState state = FlowState::kFree;
  bool hasAnswer = false;
  bool isBreaking = false;
  bool wasSilent = false;
  bool wasRefused = false;
  /** From whose address the connection is made. */
  Way way = Way::kOwn;
  /** No further one is to be from the client's. */
  bool isPlain = false;
  /** Nobody listens where clients of IPv6 are taken. */
  bool wasRefused6 = false;
  /** Changes when the slot is given to another flow, so that what speaks of the old one is known. */
  uint32_t generation = 0;
  int32_t slot = 0;
  int32_t listener = 0;
  /** 0: none. */
  int32_t backend = 0;
  Side sides[2];
  Direction directions[2];
  Endpoint client;
  int64_t startedNanos = 0;
  int64_t connectByNanos = 0;
  int64_t askedNanos = 0;
  /** Among those that connect, and then among those whose answer is waited for. */
  int32_t before = -1;
  int32_t after = -1;
};

}  // namespace shoal
