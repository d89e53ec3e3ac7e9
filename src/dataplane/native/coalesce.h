// Joins the inner frames of one batch back into super-frames, as the kernel's GRO does.
#pragma once

#include <sys/uio.h>

#include <cstdint>

#include "frame.h"

namespace shoal {

/** Where joined frames go. */
class FrameSink {
 public:
  /**
   * Writes a virtio-net header and a frame in pieces.
   *
   * @returns False if this port does not take that kind of super-frame.
   */
  virtual bool write(int port, const VnetHeader& header, iovec* pieces, int count) = 0;
  virtual bool takesUdpSegments(int port) const = 0;

 protected:
  ~FrameSink() = default;
};

/**
 * Keeps a few flows open while a batch is written to the ports, and joins what follows in order.
 *
 * The order within a flow is kept: a frame that cannot be joined first flushes its flow. Frames
 * stay where they are until `flush`, and are never changed.
 */
class Coalescer {
 public:
  explicit Coalescer(FrameSink* sink) : sink_(sink) {}

  /** `offload` says how the frame was handed over, if it is a super-frame or unfinished. */
  void deliver(int port, const uint8_t* frame, uint32_t length, bool partial, uint8_t gsoType,
               uint16_t gsoSize);
  /** Writes everything that is still open. */
  void flush();

 private:
  static constexpr int kFlowsMax = 16;
  static constexpr uint32_t kTcpSegmentsMax = 128;
  /** UDP_MAX_SEGMENTS of older kernels. */
  static constexpr uint32_t kUdpSegmentsMax = 64;
  static constexpr uint32_t kIpBytesMax = 65535;

  struct Flow {
    bool open = false;
    bool partial;
    bool verified;
    int port;
    uint32_t hash;
    FrameView view;
    const uint8_t* first;
    uint32_t gsoSize;
    uint32_t payloadBytes;
    uint32_t segments;
    uint32_t sequence;
    uint16_t id;
    bool push;
    /** Piece 0 is for the headers. */
    iovec pieces[kTcpSegmentsMax + 2];
  };

  Flow* find(int port, uint32_t hash, const uint8_t* frame, const FrameView& view);
  void open(int port, uint32_t hash, const uint8_t* frame, const FrameView& view, bool partial);
  bool join(Flow* flow, const uint8_t* frame, const FrameView& view, bool partial);
  void close(Flow* flow);
  void writeSingly(const Flow& flow);
  void writeFrame(int port, const uint8_t* frame, uint32_t length, const VnetHeader& header);

  FrameSink* sink_;
  int openCount_ = 0;
  int victim_ = 0;
  Flow flows_[kFlowsMax];
};

}  // namespace shoal
