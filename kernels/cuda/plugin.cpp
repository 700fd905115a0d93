// What the plug-in says of itself to the program that opens it.

// Counted up when a function that the program looks up by name changes.
extern "C" __attribute__((visibility("default"))) int drydock_cuda_version() { return 1; }
