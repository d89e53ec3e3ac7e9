// The N-API face of the proxy. native-proxy-binding.ts is its type.
#include <cerrno>
#include <cstring>
#include <memory>

#include "napi-util.h"
#include "proxy.h"

namespace shoal {
namespace {

struct ProxyHandle {
  std::unique_ptr<Proxy> proxy;
  napi_threadsafe_function wake = nullptr;
};

void onWake(napi_env env, napi_value callback, void* context, void*) {
  if (env == nullptr || callback == nullptr) return;
  ProxyHandle* handle = static_cast<ProxyHandle*>(context);
  handle->proxy->awake();
  napi_value receiver;
  napi_get_undefined(env, &receiver);
  napi_call_function(env, receiver, callback, 0, nullptr, nullptr);
}

/** Nobody wakes anybody after that. */
void stopProxy(void* data) {
  ProxyHandle* handle = static_cast<ProxyHandle*>(data);
  handle->proxy->stop();
  if (handle->wake != nullptr) napi_release_threadsafe_function(handle->wake, napi_tsfn_abort);
  handle->wake = nullptr;
}

void destroyProxy(napi_env env, void* data, void*) {
  ProxyHandle* handle = static_cast<ProxyHandle*>(data);
  napi_remove_env_cleanup_hook(env, stopProxy, handle);
  stopProxy(handle);
  delete handle;
}

/** The bytes of a typed array; null where it is none, or shorter than `bytes`. */
void* bytesOf(napi_env env, napi_value array, size_t bytes) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr) != napi_ok)
    return nullptr;
  const size_t width = type == napi_uint8_array ? 1 : type == napi_float64_array ? 8 : 4;
  return length * width >= bytes ? data : nullptr;
}

std::string textOf(napi_env env, napi_value value) {
  char text[4096];
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, text, sizeof text, &length) != napi_ok) return "";
  return std::string(text, length);
}

/** proxyOpen({threads, flowsMax, datagramFlowsMax, datagramIdleMs, backendsMax, backlog,
 * spliceAfterBytes, busyPollMicros, silenceMillis, onWake}) */
napi_value proxyOpen(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  napi_value options = args.values[0];
  auto get = [&](const char* name) { return integer(env, property(env, options, name)); };
  auto handle = std::make_unique<ProxyHandle>();
  ProxyHandle* context = handle.get();
  napi_value name;
  napi_create_string_utf8(env, "shoal proxy", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, property(env, options, "onWake"), nullptr, name, 0, 1,
                                      nullptr, nullptr, context, onWake,
                                      &handle->wake) != napi_ok)
    return fail(env, "EINVAL", "onWake is not a function");
  napi_unref_threadsafe_function(env, handle->wake);
  ProxyConfig config;
  config.threads = static_cast<int>(get("threads"));
  config.flowsMax = static_cast<int>(get("flowsMax"));
  config.datagramFlowsMax = static_cast<int>(get("datagramFlowsMax"));
  config.datagramIdleNanos = get("datagramIdleMs") * 1'000'000;
  config.backendsMax = static_cast<int>(get("backendsMax"));
  config.backlog = static_cast<int>(get("backlog"));
  config.spliceAfterBytes = static_cast<uint32_t>(get("spliceAfterBytes"));
  config.busyPollNanos = get("busyPollMicros") * 1000;
  config.silenceNanos = get("silenceMillis") * 1'000'000;
  config.wake = [context] {
    napi_call_threadsafe_function(context->wake, nullptr, napi_tsfn_nonblocking);
  };
  handle->proxy = std::make_unique<Proxy>(std::move(config));
  if (!handle->proxy->open()) {
    const int error = errno;
    handle->proxy.reset();
    napi_release_threadsafe_function(handle->wake, napi_tsfn_abort);
    return fail(env, "ESYSTEM", strerror(error));
  }
  napi_add_env_cleanup_hook(env, stopProxy, context);
  napi_value external;
  napi_create_external(env, handle.release(), destroyProxy, nullptr, &external);
  return external;
}

/** Defines a binding function: `proxy` and `args` are at hand. */
#define PROXY_FUNCTION(name)                                                          \
  napi_value name##Body(napi_env env, Proxy* proxy, const Arguments& args);           \
  napi_value name(napi_env env, napi_callback_info info) {                            \
    Arguments args(env, info);                                                        \
    void* data = nullptr;                                                             \
    if (args.count == 0 || napi_get_value_external(env, args.values[0], &data) != napi_ok || \
        data == nullptr)                                                              \
      return fail(env, "EINVAL", "not a proxy");                                      \
    return name##Body(env, static_cast<ProxyHandle*>(data)->proxy.get(), args);       \
  }                                                                                   \
  napi_value name##Body([[maybe_unused]] napi_env env, Proxy* proxy,                  \
                        [[maybe_unused]] const Arguments& args)

/** Stops the threads; what has happened can still be taken. */
napi_value proxyStop(napi_env env, napi_callback_info info) {
  Arguments args(env, info);
  void* data = nullptr;
  if (napi_get_value_external(env, args.values[0], &data) == napi_ok && data != nullptr)
    stopProxy(data);
  return nullptr;
}

napi_value arrayOf(napi_env env, const std::vector<int32_t>& numbers) {
  void* data = nullptr;
  napi_value buffer, array;
  napi_create_arraybuffer(env, numbers.size() * sizeof(int32_t), &data, &buffer);
  if (!numbers.empty()) memcpy(data, numbers.data(), numbers.size() * sizeof(int32_t));
  napi_create_typedarray(env, napi_int32_array, numbers.size(), buffer, 0, &array);
  return array;
}

/** Listens at those of `places` that are any; the others cannot be had. */
template <typename Listen>
napi_value listenAtPlaces(napi_env env, napi_value places, Listen listen) {
  uint32_t count = 0;
  napi_get_array_length(env, places, &count);
  std::vector<Place> known;
  std::vector<int32_t> results(count, -EADDRNOTAVAIL);
  std::vector<uint32_t> indices;
  for (uint32_t i = 0; i < count; ++i) {
    napi_value text;
    Place place;
    if (napi_get_element(env, places, i, &text) != napi_ok || !Place::parse(textOf(env, text), &place))
      continue;
    known.push_back(place);
    indices.push_back(i);
  }
  const std::vector<int32_t> found = listen(known);
  for (size_t i = 0; i < found.size(); ++i) results[indices[i]] = found[i];
  return arrayOf(env, results);
}

/** proxyListen(handle, listener, port, places): of each place, 0 or a negative errno. */
PROXY_FUNCTION(proxyListen) {
  return listenAtPlaces(env, args.values[3], [&](const std::vector<Place>& places) {
    return proxy->listen(integer32(env, args.values[1]),
                         static_cast<uint16_t>(integer32(env, args.values[2])), places);
  });
}

PROXY_FUNCTION(proxyListenDatagrams) {
  return listenAtPlaces(env, args.values[3], [&](const std::vector<Place>& places) {
    return proxy->listenDatagrams(integer32(env, args.values[1]),
                                  static_cast<uint16_t>(integer32(env, args.values[2])), places);
  });
}

PROXY_FUNCTION(proxyUnlisten) {
  return arrayOf(env, proxy->unlisten(integer32(env, args.values[1])));
}

PROXY_FUNCTION(proxyWithdraw) {
  return arrayOf(env, proxy->withdraw(integer32(env, args.values[1])));
}

PROXY_FUNCTION(proxyGive) {
  const uint32_t count = static_cast<uint32_t>(integer32(env, args.values[3]));
  const void* backends = bytesOf(env, args.values[2], count * sizeof(int32_t));
  if (backends == nullptr) return fail(env, "EINVAL", "too few backends");
  proxy->give(integer32(env, args.values[1]), static_cast<const int32_t*>(backends), count,
              integer32(env, args.values[4]));
  return nullptr;
}

/** proxySetBackend(handle, id, {address, port, netns, source, sourcePort, asClient, address6, mark,
 * proxyProtocol}) */
PROXY_FUNCTION(proxySetBackend) {
  napi_value about = args.values[2];
  auto number = [&](const char* name) { return integer(env, property(env, about, name)); };
  const auto* address = static_cast<const uint8_t*>(bytesOf(env, property(env, about, "address"), 16));
  if (address == nullptr) return fail(env, "EINVAL", "an address has 16 bytes");
  Backend backend;
  backend.to = Endpoint(address, static_cast<uint16_t>(number("port")));
  backend.netns = textOf(env, property(env, about, "netns"));
  const auto* source = static_cast<const uint8_t*>(bytesOf(env, property(env, about, "source"), 16));
  if (source != nullptr)
    backend.from = Endpoint(source, static_cast<uint16_t>(number("sourcePort")));
  napi_get_value_bool(env, property(env, about, "asClient"), &backend.asClient);
  const auto* address6 =
      static_cast<const uint8_t*>(bytesOf(env, property(env, about, "address6"), 16));
  if (address6 != nullptr) backend.to6 = Endpoint(address6, static_cast<uint16_t>(number("port")));
  backend.mark = static_cast<uint32_t>(number("mark"));
  backend.proxyProtocol = static_cast<int>(number("proxyProtocol"));
  if (!proxy->setBackend(integer32(env, args.values[1]), std::move(backend)))
    return fail(env, "EINVAL", "no such number of a backend");
  return nullptr;
}

PROXY_FUNCTION(proxyRemoveBackend) {
  proxy->removeBackend(integer32(env, args.values[1]));
  return nullptr;
}

PROXY_FUNCTION(proxyAnswer) {
  const uint32_t count = static_cast<uint32_t>(integer32(env, args.values[2]));
  const void* rows = bytesOf(env, args.values[1], count * 4 * sizeof(int32_t));
  if (rows == nullptr) return fail(env, "EINVAL", "too few answers");
  proxy->answer(static_cast<const int32_t*>(rows), count);
  return nullptr;
}

PROXY_FUNCTION(proxyResetBackend) {
  proxy->resetBackend(integer32(env, args.values[1]));
  return nullptr;
}

PROXY_FUNCTION(proxyLeaveBackend) {
  proxy->leaveBackend(integer32(env, args.values[1]));
  return nullptr;
}

/** proxyDatagramDrops(handle, counts): by DatagramDrop. */
PROXY_FUNCTION(proxyDatagramDrops) {
  auto* counts =
      static_cast<double*>(bytesOf(env, args.values[1], kDatagramDrops * sizeof(double)));
  if (counts == nullptr) return fail(env, "EINVAL", "too little room for counts");
  for (size_t i = 0; i < kDatagramDrops; ++i)
    counts[i] = static_cast<double>(proxy->datagramDrops(i));
  return nullptr;
}

/** proxyTake(handle, reports, most): how many were written. */
PROXY_FUNCTION(proxyTake) {
  const uint32_t most = static_cast<uint32_t>(integer32(env, args.values[2]));
  void* reports = bytesOf(env, args.values[1], most * sizeof(Report));
  if (reports == nullptr) return fail(env, "EINVAL", "too little room for reports");
  return integerValue(env, static_cast<int32_t>(proxy->take(static_cast<Report*>(reports), most)));
}

PROXY_FUNCTION(proxyFlowCount) { return integerValue(env, proxy->flowCount()); }

#undef PROXY_FUNCTION

}  // namespace

void exportProxy(napi_env env, napi_value exports) {
  const struct {
    const char* name;
    napi_callback call;
  } functions[] = {
      {"proxyOpen", proxyOpen},
      {"proxyStop", proxyStop},
      {"proxyListen", proxyListen},
      {"proxyListenDatagrams", proxyListenDatagrams},
      {"proxyUnlisten", proxyUnlisten},
      {"proxyGive", proxyGive},
      {"proxyWithdraw", proxyWithdraw},
      {"proxySetBackend", proxySetBackend},
      {"proxyRemoveBackend", proxyRemoveBackend},
      {"proxyAnswer", proxyAnswer},
      {"proxyResetBackend", proxyResetBackend},
      {"proxyLeaveBackend", proxyLeaveBackend},
      {"proxyDatagramDrops", proxyDatagramDrops},
      {"proxyTake", proxyTake},
      {"proxyFlowCount", proxyFlowCount},
  };
  for (const auto& entry : functions) {
    napi_value function;
    napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.call, nullptr, &function);
    napi_set_named_property(env, exports, entry.name, function);
  }
}

}  // namespace shoal
