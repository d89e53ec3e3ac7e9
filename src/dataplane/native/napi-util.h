// What the faces of the addon share.
#pragma once

#include <node_api.h>

#include <string>

namespace shoal {

constexpr size_t kArgumentsMax = 8;

struct Arguments {
  size_t count = kArgumentsMax;
  napi_value values[kArgumentsMax];

  Arguments(napi_env env, napi_callback_info info) {
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
};

inline napi_value fail(napi_env env, const char* code, const std::string& message) {
  napi_throw_error(env, code, message.c_str());
  return nullptr;
}

inline int64_t integer(napi_env env, napi_value value) {
  int64_t result = 0;
  napi_get_value_int64(env, value, &result);
  return result;
}

inline int32_t integer32(napi_env env, napi_value value) {
  int32_t result = 0;
  napi_get_value_int32(env, value, &result);
  return result;
}

inline napi_value integerValue(napi_env env, int32_t value) {
  napi_value result;
  napi_create_int32(env, value, &result);
  return result;
}

inline napi_value property(napi_env env, napi_value object, const char* name) {
  napi_value value = nullptr;
  napi_get_named_property(env, object, name, &value);
  return value;
}

/** The proxy's functions; binding.cc has the packet driver's. */
void exportProxy(napi_env env, napi_value exports);

}  // namespace shoal
