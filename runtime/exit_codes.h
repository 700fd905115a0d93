#pragma once
// What a serving process's exit code tells; docs/serve.md. Bad input is 2, as everywhere, and an internal error 70.
namespace drydock::runtime {

inline constexpr int kExitStopped = 0;       // asked to stop, and every answer was finished
inline constexpr int kExitCutOff = 4;        // asked to stop, and the drain's time was over first
inline constexpr int kExitNoAddress = 5;     // an address can't be listened on
inline constexpr int kExitEngineFailed = 6;  // the engine can't be made, or failed
inline constexpr int kExitCrashLoop = 7;     // a child ended too often

}  // namespace drydock::runtime
