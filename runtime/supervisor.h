#pragma once
// Starts the processes of a deployment, begins them anew when they end, and stops them in order.
#include <functional>
#include <string>
#include <vector>

namespace drydock::runtime {

struct ChildSpec {
  std::string name;                    // "router", "decode/0"
  std::vector<std::string> arguments;  // of the program, without its name
};

struct SupervisorOptions {
  std::string program;                   // path of the executable
  std::vector<std::string> environment;  // "NAME=value", beside this process's own
  // The first child is asked to stop first, and the others once it has ended: it drains.
  std::vector<ChildSpec> children;
  double first_pause_s = 0.2, longest_pause_s = 10;  // before a child is begun anew; doubles
  double healthy_s = 30;                             // a child that lived so long starts from the first pause again
  int most_restarts = 10;                            // of one child in restart_window_s; more are a crash loop
  double restart_window_s = 60;
  double stop_limit_s = 40;  // from the request to stop to SIGKILL
  std::function<void(const std::string&)> log;
};

// Blocks until SIGTERM or SIGINT has come and all children have ended, or one can't be helped. The calling thread must
// be the only one. Children start without a shell, with default signals and in process groups of their own; when this
// process dies they get SIGTERM (see follow_supervisor). Returns an exit code (exit_codes.h): the first child's where
// it was asked to stop; a child that ends with bad input or without an address is not begun anew, its code is returned.
int supervise(const SupervisorOptions& options);

// For children: ends this process when its supervisor is gone. Nothing where there is none.
void follow_supervisor();

// SIGTERM and SIGINT are kept from threads that are made from now on, and wait_for_stop() tells of them.
void hold_stop_signals();
// True: asked to stop; false: `seconds` are over.
bool wait_for_stop(double seconds);

}  // namespace drydock::runtime
