#include "profiler/cuda/replay.h"

#include <algorithm>

namespace drydock::profiler::cuda {
namespace {

// A pair of events on one device.
class Timer {
 public:
  explicit Timer(Lane lane) : lane_(lane) {
    const DeviceScope scope(lane_.device);
    check(cudaEventCreate(&begin_), "an event");
    check(cudaEventCreate(&end_), "an event");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void begin() { record(begin_); }
  void end() { record(end_); }
  // Waits.
  double us() {
    float milliseconds = 0;
    check(cudaEventSynchronize(end_), "running an op");
    check(cudaEventElapsedTime(&milliseconds, begin_, end_), "time between events");
    return double{milliseconds} * 1e3;
  }

 private:
  void record(cudaEvent_t event) {
    const DeviceScope scope(lane_.device);
    check(cudaEventRecord(event, lane_.stream), "an event");
  }
  Lane lane_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// Records what is enqueued on every lane, a graph for each. A capture that is left early is thrown away.
class Capture {
 public:
  explicit Capture(const std::vector<Lane>& lanes) : lanes_(lanes) {
    // Of this thread only: NCCL's own threads may allocate meanwhile.
    for (const Lane& lane : lanes_) {
      const DeviceScope scope(lane.device);
      check(cudaStreamBeginCapture(lane.stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
      ++open_;
    }
  }
  ~Capture() {
    for (size_t i = lanes_.size() - open_; open_ > 0; ++i, --open_) {
      cudaGraph_t graph = nullptr;
      cudaStreamEndCapture(lanes_[i].stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
    }
    cudaGetLastError();
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraphExec_t next() {
    const Lane& lane = lanes_[lanes_.size() - open_];
    const DeviceScope scope(lane.device);
    --open_;
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(lane.stream, &graph), "capturing a graph");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "making a graph");
    return executable;
  }

 private:
  const std::vector<Lane>& lanes_;
  size_t open_ = 0;  // the last ones of lanes_, once all are
};

}  // namespace

struct Replay::State {
  State(const std::vector<Lane>& on, int64_t count) : lanes(on), launches(count), timer(on.front()) {}
  ~State() {
    for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
  }
  std::vector<Lane> lanes;
  std::vector<cudaGraphExec_t> graphs;  // none: `launch` is called
  Launch launch;
  int64_t launches;
  Timer timer;
};

Replay::Replay(const std::vector<Lane>& lanes, const Launch& launch, int64_t launches, bool needs_host)
    : state_(std::make_unique<State>(lanes, launches)) {
  if (needs_host) {
    state_->launch = launch;
    return;
  }
  Capture capture(state_->lanes);
  for (int64_t turn = 0; turn < launches; ++turn) launch(turn);
  for (size_t i = 0; i < lanes.size(); ++i) state_->graphs.push_back(capture.next());
}

Replay::~Replay() = default;
Replay::Replay(Replay&&) noexcept = default;

int64_t Replay::launches() const { return state_->launches; }

double Replay::run() {
  // The first lane last: the others wait for it in their first exchange, so that its time has no wait for the host.
  State& s = *state_;
  if (s.launch) {
    s.timer.begin();
    for (int64_t turn = 0; turn < s.launches; ++turn) s.launch(turn);
    s.timer.end();
    return s.timer.us() / static_cast<double>(s.launches);
  }
  for (size_t i = s.lanes.size(); i-- > 0;) {
    const DeviceScope scope(s.lanes[i].device);
    if (i == 0) s.timer.begin();
    check(cudaGraphLaunch(s.graphs[i], s.lanes[i].stream), "starting a graph");
  }
  s.timer.end();
  const double us = s.timer.us() / static_cast<double>(s.launches);
  if (s.lanes.size() > 1) wait_for(s.lanes);
  return us;
}

double rough_us(const std::vector<Lane>& lanes, const Launch& launch) {
  constexpr int kWarmUp = 2, kTimed = 3;
  for (int turn = 0; turn < kWarmUp; ++turn) launch(turn);
  wait_for(lanes);
  Timer timer(lanes.front());
  timer.begin();
  for (int turn = 0; turn < kTimed; ++turn) launch(kWarmUp + turn);
  timer.end();
  const double us = timer.us() / kTimed;
  wait_for(lanes);
  return us;
}

void wait_for(const std::vector<Lane>& lanes) {
  for (const Lane& lane : lanes) {
    const DeviceScope scope(lane.device);
    check(cudaStreamSynchronize(lane.stream), "running an op");
  }
}

}  // namespace drydock::profiler::cuda
