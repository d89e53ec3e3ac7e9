// A list of flows, linked through the flows themselves.
#pragma once

#include <cstdint>

namespace shoal {

/**
 * Flows in the order in which they were appended, by slot. They are linked by their `before` and `after`, -1 at the
 * ends, so a flow is in one list at a time. `at` finds the flow of a slot.
 */
class SlotList {
 public:
  /** -1: there is none. */
  int32_t first() const { return first_; }
  int32_t last() const { return last_; }

  template <typename Flow>
  bool has(const Flow& flow) const {
    return flow.before >= 0 || first_ == flow.slot;
  }

  template <typename Flow, typename At>
  void append(Flow* flow, At at) {
    flow->before = last_;
    flow->after = -1;
    (last_ >= 0 ? at(last_)->after : first_) = flow->slot;
    last_ = flow->slot;
  }

  /** Nothing happens where it is not in the list. */
  template <typename Flow, typename At>
  void remove(Flow* flow, At at) {
    if (!has(*flow)) return;
    (flow->before >= 0 ? at(flow->before)->after : first_) = flow->after;
    (flow->after >= 0 ? at(flow->after)->before : last_) = flow->before;
    flow->before = flow->after = -1;
  }

 private:
  int32_t first_ = -1;
  int32_t last_ = -1;
};

}  // namespace shoal
