// Moves packets between TAPs, the underlay and two batches that JavaScript decides about.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coalesce.h"
#include "seal.h"
#include "segment.h"
#include "underlay.h"

namespace shoal {

/** Where the typed arrays of a PacketBatch lie. */
struct BatchMemory {
  uint8_t* arena = nullptr;
  uint32_t arenaBytes = 0;
  /** The part before the scratch. */
  uint32_t rowBytes = 0;
  uint32_t rowsMax = 0;
  uint32_t outputsMax = 0;
  int32_t* rowOffset = nullptr;
  int32_t* rowLength = nullptr;
  int32_t* rowPort = nullptr;
  uint8_t* rowGsoType = nullptr;
  uint16_t* rowGsoSize = nullptr;
  uint8_t* rowFlags = nullptr;
  int32_t* rowSender = nullptr;
  int32_t* rowSealer = nullptr;
  uint8_t* outKind = nullptr;
  int32_t* outRow = nullptr;
  int32_t* outOffset = nullptr;
  int32_t* outLength = nullptr;
  int32_t* outTarget = nullptr;
  int32_t* outVni = nullptr;
  uint32_t* outHash = nullptr;
};

struct DriverConfig {
  UnderlayConfig underlay;
  int64_t busyPollMicros;
};

/** Bits of what `wait` found. */
constexpr int kPortsReady = 1;
constexpr int kUnderlayReady = 2;
constexpr int kWoken = 4;

class Driver final : FrameSink {
 public:
  Driver(const DriverConfig& config, const BatchMemory& egress, const BatchMemory& ingress,
         double* stats);
  ~Driver();

  /** Opens sockets, epoll and the wake descriptor. Returns the failed call with `errno` set. */
  const char* open();

  int wakeFd() const { return wakeFd_; }
  void addPort(int index, int fd);
  void removePort(int index);
  void setVtep(int index, const uint8_t address[16], uint16_t udpPort);
  void removeVtep(int index);
  void allowSeals(uint64_t first, uint64_t count) { seals_.allow(first, count); }
  void setSeals(int index, const SealKey* keys, uint32_t count) {
    seals_.setKeys(index, keys, count);
  }

  /** Makes the calling thread the one that all of this runs on, ahead of the applications. */
  void raisePriority();
  /** Sleeps until there is something to do or `timeoutMillis` have passed. */
  int wait(int timeoutMillis);
  /** Fills the egress batch with frames from ready ports. Returns its rows. */
  int readPorts();
  /** Fills the ingress batch with datagrams. Returns its rows; call again until 0 or enough. */
  int readUnderlay();
  void performEgress(int outputs);
  void performIngress(int outputs);

  bool write(int port, const VnetHeader& header, iovec* pieces, int count) override;
  bool takesUdpSegments(int port) const override;

 private:
  static constexpr int kPortsMax = 65536;
  static constexpr int kVtepsMax = 65536;
  static constexpr int kEventsMax = 64;
  /** Frames of one batch, and of one port before the next one has its turn. */
  static constexpr int kFramesMax = 64;
  static constexpr int kFramesPerPort = 16;
  static constexpr uint32_t kFrameBytesMax = 65535 + 14 + 8;
  static constexpr uint32_t kHeadroomBytes = 64;
  static constexpr uint32_t kHeaderBlocksMax = 2048;
  /** Sealed datagrams that wait to be sent: few enough to be in the cache still. */
  static constexpr uint32_t kSealedBytesMax = 512 * 1024;

  struct Port {
    int fd = -1;
    bool udpSegments = true;
    /** Read directly, and not watched by epoll, since a frame came a moment ago. */
    bool hot = false;
    int64_t usedMicros = 0;
  };

  struct Row {
    Offload offload;
    /** VNI of the VXLAN header in the row's headroom, for the frame at `headerOffset`. */
    int64_t headerVni;
    int32_t headerOffset;
  };

  bool readPort(int index, int framesMax, int* rows, uint32_t* cursor);
  /** False if the batch is full: the rest of the train waits for the next one. */
  bool addRows(const Train& train, int* rows);
  bool hasTrains() const { return trainNext_ < trainCount_; }
  void describeIngressRow(int row, const Train& train);
  void sendToVtep(BatchMemory& batch, bool egress, int output);
  void sendSuperFrame(SendQueue* queue, int vtep, const uint8_t* frame, uint32_t length,
                      const Offload& offload, uint32_t vni, bool sealed);
  void sendSealed(SendQueue* queue, int vtep, const uint8_t* head, uint32_t headLength,
                  const uint8_t* body, uint32_t bodyLength);
  bool openRow(int row, uint8_t* datagram, uint32_t length);
  void writeToPort(const BatchMemory& batch, int output);
  bool isSane(const BatchMemory& batch, int output) const;
  /** The offload of row `row` for a frame that starts at `offset`. */
  Offload offloadAt(const BatchMemory& batch, int row, int32_t offset) const;
  bool finishChecksum(BatchMemory& batch, int row, int32_t offset, uint32_t length);
  uint8_t* headerBlock();
  void flushQueues();
  void drainQueues();
  SendQueue* queueFor(int vtep, uint32_t hash);
  const Port* portAt(int index) const;
  int watched(int timeoutMillis);
  bool watch(int fd, uint32_t tag);
  void heatPort(int index);
  void heatReceiver(int which);
  void stretch();
  void coolIdle();
  bool isHot() const { return !hotPorts_.empty() || receiverHot_[0] || receiverHot_[1]; }

  DriverConfig config_;
  BatchMemory egress_, ingress_;
  Stats stats_;
  int epoll_ = -1;
  int wakeFd_ = -1;
  std::unique_ptr<Receiver> receivers_[2];
  std::vector<std::unique_ptr<SendQueue>> queues_[2];
  std::vector<SendQueue*> busyQueues_;
  std::vector<VtepAddress> vteps_;
  std::vector<Port> ports_;
  std::vector<int> readyPorts_;
  bool receiverReady_[2] = {false, false};
  int nextReceiver_ = 0;
  int slots_ = 0;
  int trainsWanted_ = Receiver::kTrainsMax;
  std::vector<int> hotPorts_;
  bool receiverHot_[2] = {false, false};
  int64_t receiverUsedMicros_[2] = {0, 0};
  /** When the turn began, for all that happens in it. */
  int64_t turnMicros_ = 0;
  int64_t lastPacketMicros_ = 0;
  /** `config_.busyPollMicros`, stretched. */
  int64_t pollMicros_ = 0;
  int readsSinceSleep_ = 0;
  bool turnFound_ = false;
  uint32_t turns_ = 0;
  int64_t wokenMicros_ = 0;
  /** Trains of the last read, from `trainNext_` on not yet (wholly) turned into rows. */
  Train trains_[Receiver::kTrainsMax];
  int trainCount_ = 0;
  int trainNext_ = 0;
  uint32_t trainAt_ = 0;
  std::vector<Row> rows_;
  std::vector<uint8_t> headerBlocks_;
  uint32_t headerBlocksUsed_ = 0;
  Seals seals_;
  std::vector<uint8_t> sealed_;
  uint32_t sealedUsed_ = 0;
  Coalescer coalescer_;
};

}  // namespace shoal
