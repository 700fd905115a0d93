// Carries the flags of the precompiled header; see precompiled.cmake.
