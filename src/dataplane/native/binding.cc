// The N-API face of the driver: plain functions over an opaque handle. native-binding.ts is its type.
#include <node_api.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "driver.h"
#include "napi-util.h"

namespace shoal {
namespace {

constexpr size_t kTestFramesMax = 4096;

struct Handle {
  std::unique_ptr<Driver> driver;
  /** Keeps the typed arrays, whose memory the driver writes to. */
  std::vector<napi_ref> references;
};

Driver* driverOf(napi_env env, napi_value value) {
  void* handle = nullptr;
  if (napi_get_value_external(env, value, &handle) != napi_ok || handle == nullptr) return nullptr;
  return static_cast<Handle*>(handle)->driver.get();
}

void* arrayOf(napi_env env, Handle* handle, napi_value object, const char* name, size_t* length) {
  napi_value array = name == nullptr ? object : property(env, object, name);
  napi_typedarray_type type;
  void* data = nullptr;
  *length = 0;
  if (napi_get_typedarray_info(env, array, &type, length, &data, nullptr, nullptr) != napi_ok)
    return nullptr;
  napi_ref reference;
  if (napi_create_reference(env, array, 1, &reference) == napi_ok)
    handle->references.push_back(reference);
  return data;
}

template <typename T>
bool take(napi_env env, Handle* handle, napi_value batch, const char* name, T** to, uint32_t* most) {
  size_t length = 0;
  *to = static_cast<T*>(arrayOf(env, handle, batch, name, &length));
  if (*to == nullptr) return false;
  *most = *most == 0 ? static_cast<uint32_t>(length)
                     : std::min(*most, static_cast<uint32_t>(length));
  return true;
}

bool takeBatch(napi_env env, Handle* handle, napi_value batch, uint32_t rowBytes, BatchMemory* to) {
  to->rowBytes = rowBytes;
  uint32_t& rows = to->rowsMax;
  uint32_t& outputs = to->outputsMax;
  return take(env, handle, batch, "arena", &to->arena, &to->arenaBytes) &&
         take(env, handle, batch, "rowOffset", &to->rowOffset, &rows) &&
         take(env, handle, batch, "rowLength", &to->rowLength, &rows) &&
         take(env, handle, batch, "rowPort", &to->rowPort, &rows) &&
         take(env, handle, batch, "rowGsoType", &to->rowGsoType, &rows) &&
         take(env, handle, batch, "rowGsoSize", &to->rowGsoSize, &rows) &&
         take(env, handle, batch, "rowFlags", &to->rowFlags, &rows) &&
         take(env, handle, batch, "rowSender", &to->rowSender, &rows) &&
         take(env, handle, batch, "rowSealer", &to->rowSealer, &rows) &&
         take(env, handle, batch, "outKind", &to->outKind, &outputs) &&
         take(env, handle, batch, "outRow", &to->outRow, &outputs) &&
         take(env, handle, batch, "outOffset", &to->outOffset, &outputs) &&
         take(env, handle, batch, "outLength", &to->outLength, &outputs) &&
         take(env, handle, batch, "outTarget", &to->outTarget, &outputs) &&
         take(env, handle, batch, "outVni", &to->outVni, &outputs) &&
         take(env, handle, batch, "outHash", &to->outHash, &outputs);
}

void destroy(napi_env env, void* data, void*) {
  Handle* handle = static_cast<Handle*>(data);
  for (napi_ref reference : handle->references) napi_delete_reference(env, reference);
  delete handle;
}

/** open({udpPort, receiveBufferBytes, busyPollMicros, sourcePorts, egress, egressRowBytes, ingress,
 * ingressRowBytes, stats}) */
napi_value open(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  napi_value options = args.values[0];
  auto get = [&](const char* name) { return integer(env, property(env, options, name)); };
  DriverConfig config;
  config.underlay.udpPort = static_cast<uint16_t>(get("udpPort"));
  config.underlay.receiveBufferBytes = static_cast<int>(get("receiveBufferBytes"));
  config.underlay.sourcePorts = static_cast<uint32_t>(get("sourcePorts"));
  config.busyPollMicros = get("busyPollMicros");

  auto handle = std::make_unique<Handle>();
  BatchMemory egress, ingress;
  size_t statsCount = 0;
  auto* stats = static_cast<double*>(arrayOf(env, handle.get(), property(env, options, "stats"),
                                             nullptr, &statsCount));
  const bool taken =
      takeBatch(env, handle.get(), property(env, options, "egress"),
                static_cast<uint32_t>(get("egressRowBytes")), &egress) &&
      takeBatch(env, handle.get(), property(env, options, "ingress"),
                static_cast<uint32_t>(get("ingressRowBytes")), &ingress);
  const bool fits = taken && stats != nullptr && statsCount >= static_cast<size_t>(Stat::kCount) &&
                    egress.rowBytes <= egress.arenaBytes && ingress.rowBytes <= ingress.arenaBytes;
  if (!fits) {
    for (napi_ref reference : handle->references) napi_delete_reference(env, reference);
    return fail(env, "EINVAL", "a batch or the counters are not as expected");
  }
  handle->driver = std::make_unique<Driver>(config, egress, ingress, stats);
  const char* failedCall = handle->driver->open();
  if (failedCall != nullptr) {
    const int error = errno;
    for (napi_ref reference : handle->references) napi_delete_reference(env, reference);
    const char* code = error == EADDRINUSE ? "EADDRINUSE" : error == EACCES ? "EACCES" : "ESYSTEM";
    return fail(env, code, std::string(failedCall) + ": " + strerror(error));
  }
  napi_value external;
  napi_create_external(env, handle.release(), destroy, nullptr, &external);
  return external;
}

/** close(handle): closes every descriptor now, not when the collector comes by. */
napi_value closeDriver(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  void* data = nullptr;
  if (napi_get_value_external(env, args.values[0], &data) == napi_ok && data != nullptr)
    static_cast<Handle*>(data)->driver.reset();
  return nullptr;
}

/** Defines a binding function: `driver` and `args` are at hand, a closed driver throws. */
#define DRIVER_FUNCTION(name)                                                        \
  napi_value name##Body(napi_env env, Driver* driver, const Arguments& args);        \
  napi_value name(napi_env env, napi_callback_info info) {                           \
    Arguments args(env, info);                                                       \
    Driver* driver = args.count == 0 ? nullptr : driverOf(env, args.values[0]);      \
    if (driver == nullptr) return fail(env, "ECLOSED", "the packet driver is closed"); \
    return name##Body(env, driver, args);                                            \
  }                                                                                  \
  napi_value name##Body([[maybe_unused]] napi_env env, Driver* driver,               \
                        [[maybe_unused]] const Arguments& args)

DRIVER_FUNCTION(wakeFd) { return integerValue(env, driver->wakeFd()); }

DRIVER_FUNCTION(addPort) {
  driver->addPort(integer32(env, args.values[1]), integer32(env, args.values[2]));
  return nullptr;
}

DRIVER_FUNCTION(removePort) {
  driver->removePort(integer32(env, args.values[1]));
  return nullptr;
}

DRIVER_FUNCTION(setVtep) {
  void* address = nullptr;
  size_t length = 0;
  napi_get_typedarray_info(env, args.values[2], nullptr, &length, &address, nullptr, nullptr);
  if (address == nullptr || length != 16) return fail(env, "EINVAL", "an address has 16 bytes");
  driver->setVtep(integer32(env, args.values[1]), static_cast<uint8_t*>(address),
                  static_cast<uint16_t>(integer32(env, args.values[3])));
  return nullptr;
}

DRIVER_FUNCTION(removeVtep) {
  driver->removeVtep(integer32(env, args.values[1]));
  return nullptr;
}

/** allowSeals(handle, first, count), both big integers. */
DRIVER_FUNCTION(allowSeals) {
  uint64_t first = 0, count = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env, args.values[1], &first, &lossless) != napi_ok ||
      napi_get_value_bigint_uint64(env, args.values[2], &count, &lossless) != napi_ok)
    return fail(env, "EINVAL", "counters are big integers");
  driver->allowSeals(first, count);
  return nullptr;
}

/** setSeals(handle, index, keys): packed as SealKey, the one that seals first. */
DRIVER_FUNCTION(setSeals) {
  void* keys = nullptr;
  size_t length = 0;
  napi_get_typedarray_info(env, args.values[2], nullptr, &length, &keys, nullptr, nullptr);
  if (length % sizeof(SealKey) != 0) return fail(env, "EINVAL", "keys have 39 bytes");
  driver->setSeals(integer32(env, args.values[1]), static_cast<const SealKey*>(keys),
                   static_cast<uint32_t>(length / sizeof(SealKey)));
  return nullptr;
}

DRIVER_FUNCTION(raisePriority) {
  driver->raisePriority();
  return nullptr;
}

DRIVER_FUNCTION(wait) {
  return integerValue(env, driver->wait(integer32(env, args.values[1])));
}

DRIVER_FUNCTION(readPorts) { return integerValue(env, driver->readPorts()); }

DRIVER_FUNCTION(readUnderlay) { return integerValue(env, driver->readUnderlay()); }

DRIVER_FUNCTION(performEgress) {
  driver->performEgress(integer32(env, args.values[1]));
  return nullptr;
}

DRIVER_FUNCTION(performIngress) {
  driver->performIngress(integer32(env, args.values[1]));
  return nullptr;
}

#undef DRIVER_FUNCTION

napi_value copyOut(napi_env env, const std::vector<uint8_t>& bytes) {
  napi_value buffer;
  napi_create_buffer_copy(env, bytes.size(), bytes.data(), nullptr, &buffer);
  return buffer;
}

napi_value arrayFrom(napi_env env, const std::vector<std::vector<uint8_t>>& items) {
  napi_value array;
  napi_create_array_with_length(env, items.size(), &array);
  for (size_t i = 0; i < items.size(); ++i)
    napi_set_element(env, array, static_cast<uint32_t>(i), copyOut(env, items[i]));
  return array;
}

/** segment(vnetHeaderAndFrame, vni): the datagrams, for tests. */
napi_value segment(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  void* data = nullptr;
  size_t length = 0;
  napi_get_buffer_info(env, args.values[0], &data, &length);
  std::vector<std::vector<uint8_t>> datagrams;
  if (length < kVnetBytes) return arrayFrom(env, datagrams);
  VnetHeader vnet;
  memcpy(&vnet, data, sizeof vnet);
  std::vector<uint8_t> frame(static_cast<uint8_t*>(data) + kVnetBytes,
                             static_cast<uint8_t*>(data) + length);
  const Offload offload{vnet.flags, vnet.gsoType, vnet.gsoSize, vnet.checksumStart,
                        vnet.checksumOffset};
  const uint32_t vni = static_cast<uint32_t>(integer(env, args.values[1]));
  if (vnet.gsoType == kGsoNone) {
    if (vnet.flags & kNeedsChecksum)
      completeChecksum(frame.data(), static_cast<uint32_t>(frame.size()), offload);
    std::vector<uint8_t> datagram(kVxlanBytes);
    writeVxlan(datagram.data(), vni);
    datagram.insert(datagram.end(), frame.begin(), frame.end());
    datagrams.push_back(std::move(datagram));
    return arrayFrom(env, datagrams);
  }
  Segmenter segmenter;
  if (!segmenter.begin(frame.data(), static_cast<uint32_t>(frame.size()), offload, vni))
    return arrayFrom(env, datagrams);
  uint8_t block[kHeaderBlockBytes];
  const uint8_t* payload;
  uint32_t payloadLength;
  while (const uint32_t headers = segmenter.next(block, &payload, &payloadLength)) {
    std::vector<uint8_t> datagram(block, block + headers);
    datagram.insert(datagram.end(), payload, payload + payloadLength);
    datagrams.push_back(std::move(datagram));
  }
  return arrayFrom(env, datagrams);
}

struct Collector final : FrameSink {
  std::vector<std::vector<uint8_t>> frames;
  bool udpSegments = true;

  bool write(int, const VnetHeader& header, iovec* pieces, int count) override {
    if (header.gsoType == kGsoUdp && !udpSegments) return false;
    const uint8_t* start = reinterpret_cast<const uint8_t*>(&header);
    std::vector<uint8_t> frame(start, start + sizeof header);
    for (int i = 0; i < count; ++i) {
      const uint8_t* bytes = static_cast<const uint8_t*>(pieces[i].iov_base);
      frame.insert(frame.end(), bytes, bytes + pieces[i].iov_len);
    }
    frames.push_back(std::move(frame));
    return true;
  }
  bool takesUdpSegments(int) const override { return udpSegments; }
};

/** coalesce(datagrams): what would be written to a port, each with its virtio-net header; for tests. */
napi_value coalesce(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  uint32_t count = 0;
  napi_get_array_length(env, args.values[0], &count);
  if (count > kTestFramesMax) return fail(env, "EINVAL", "too many datagrams");
  Collector collector;
  if (args.count > 1) napi_get_value_bool(env, args.values[1], &collector.udpSegments);
  auto coalescer = std::make_unique<Coalescer>(&collector);
  std::vector<std::vector<uint8_t>> datagrams(count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value item;
    void* data = nullptr;
    size_t length = 0;
    napi_get_element(env, args.values[0], i, &item);
    napi_get_buffer_info(env, item, &data, &length);
    if (length <= kVxlanBytes) continue;
    const uint8_t* bytes = static_cast<uint8_t*>(data);
    datagrams[i].assign(bytes + kVxlanBytes, bytes + length);
    const std::vector<uint8_t>& frame = datagrams[i];
    const uint32_t frameLength = static_cast<uint32_t>(frame.size());
    FrameView view;
    const bool partial =
        viewFrame(frame.data(), frameLength, &view) && hasPartialChecksum(frame.data(), view);
    coalescer->deliver(0, frame.data(), frameLength, partial, kGsoNone, 0);
  }
  coalescer->flush();
  return arrayFrom(env, collector.frames);
}

/** canSeal(): whether this process has what sealing needs. */
napi_value canSeal(napi_env env, napi_callback_info) {
  napi_value result;
  napi_get_boolean(env, Seals::available(), &result);
  return result;
}

/** checksum(bytes): the sum folded to 16 bits, in memory order; for tests. */
napi_value checksum(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  void* data = nullptr;
  size_t length = 0;
  napi_get_buffer_info(env, args.values[0], &data, &length);
  return integerValue(env, fold(sumBytes(static_cast<uint8_t*>(data), length)));
}

}  // namespace
}  // namespace shoal

NAPI_MODULE_INIT() {
  using namespace shoal;
  const struct {
    const char* name;
    napi_callback call;
  } functions[] = {
      {"open", open},
      {"close", closeDriver},
      {"wakeFd", wakeFd},
      {"addPort", addPort},
      {"removePort", removePort},
      {"setVtep", setVtep},
      {"removeVtep", removeVtep},
      {"allowSeals", allowSeals},
      {"setSeals", setSeals},
      {"canSeal", canSeal},
      {"raisePriority", raisePriority},
      {"wait", wait},
      {"readPorts", readPorts},
      {"readUnderlay", readUnderlay},
      {"performEgress", performEgress},
      {"performIngress", performIngress},
      {"segment", segment},
      {"coalesce", coalesce},
      {"checksum", checksum},
  };
  for (const auto& entry : functions) {
    napi_value function;
    napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.call, nullptr, &function);
    napi_set_named_property(env, exports, entry.name, function);
  }
  exportProxy(env, exports);
  return exports;
}
