#include "cpu/stop.h"

#include <utility>

#include "cpu/float_mode.h"

namespace lidcam::cpu {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(20);

thread_local StopScope* current = nullptr;

}  // namespace

StopScope::StopScope(std::function<void()> poll)
    : poll_(std::move(poll)),
      next_(std::chrono::steady_clock::now()),
      float_state_(FloatMode::state()),
      outer_(current) {
  current = this;
}

StopScope::~StopScope() { current = outer_; }

void check_stop() {
  StopScope* const scope = current;
  if (!scope) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < scope->next_) return;
  scope->next_ = now + kInterval;
  const FloatMode mode(FloatMode::State{scope->float_state_});
  scope->poll_();
}

}  // namespace lidcam::cpu
