# The CUDA half: looks for a compiler and libraries and sets DRYDOCK_CUDA_FOUND. A machine without them builds the rest.
# Looked at, in this order: CMAKE_CUDA_COMPILER, $CUDACXX, nvcc on PATH, what scripts/cuda_toolkit puts into build/.
set(DRYDOCK_CUDA_FOUND OFF)
if(NOT DRYDOCK_CUDA)
  return()
endif()

set(DRYDOCK_CUDA_TOOLKIT ${PROJECT_SOURCE_DIR}/build/cuda-toolkit CACHE PATH
  "Folder that scripts/cuda_toolkit was given")
if(NOT CMAKE_CUDA_COMPILER)
  find_program(DRYDOCK_NVCC nvcc)
  if(DEFINED ENV{CUDACXX})
    set(CMAKE_CUDA_COMPILER $ENV{CUDACXX})
  elseif(DRYDOCK_NVCC)
    set(CMAKE_CUDA_COMPILER ${DRYDOCK_NVCC})
  elseif(EXISTS ${DRYDOCK_CUDA_TOOLKIT}/nvidia/cu13/bin/nvcc)
    set(CMAKE_CUDA_COMPILER ${DRYDOCK_CUDA_TOOLKIT}/nvidia/cu13/bin/nvcc)
  endif()
endif()
if(NOT CMAKE_CUDA_COMPILER)
  message(STATUS
    "CUDA half: skipped, no nvcc on PATH or in ${DRYDOCK_CUDA_TOOLKIT}; scripts/cuda_toolkit puts one there")
  return()
endif()

# The toolkit of that compiler: its headers and libraries, the only ones that are used.
get_filename_component(DRYDOCK_CUDA_ROOT ${CMAKE_CUDA_COMPILER} REALPATH)
get_filename_component(DRYDOCK_CUDA_ROOT ${DRYDOCK_CUDA_ROOT}/../.. ABSOLUTE)
set(missing "")
foreach(library cudart_static cublasLt cublas cupti nccl)
  find_library(DRYDOCK_LIBRARY_${library} ${library} HINTS ${DRYDOCK_CUDA_ROOT}
    PATH_SUFFIXES lib lib64 extras/CUPTI/lib64 targets/x86_64-linux/lib)
  if(NOT DRYDOCK_LIBRARY_${library})
    string(APPEND missing " ${library}")
  endif()
endforeach()
if(missing)
  message(STATUS "CUDA half: skipped, ${DRYDOCK_CUDA_ROOT} lacks${missing}; scripts/cuda_toolkit has a whole toolkit")
  return()
endif()
find_path(DRYDOCK_INCLUDE_cupti cupti.h HINTS ${DRYDOCK_CUDA_ROOT} PATH_SUFFIXES include extras/CUPTI/include)
find_path(DRYDOCK_INCLUDE_nccl nccl.h HINTS ${DRYDOCK_CUDA_ROOT} PATH_SUFFIXES include)

if(NOT CMAKE_CUDA_ARCHITECTURES)
  # Machine code only: A100, L40S and RTX 4090, H100 and H200, B200. "a": with wgmma, TMA and tcgen05.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 89-real 90a-real 100a-real)
endif()
if(DRYDOCK_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${DRYDOCK_CCACHE})
endif()
enable_language(CUDA)
# CMake 3.25.1 does not know that nvcc 13 speaks C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# cudart is linked into the plug-in; the others are shared and found beside this toolkit. libcuda and NVML are opened at
# run time, so that one binary starts on a machine without a driver.
add_library(drydock_cuda_toolkit INTERFACE)
find_package(Threads REQUIRED)
target_include_directories(drydock_cuda_toolkit SYSTEM INTERFACE ${DRYDOCK_CUDA_ROOT}/include ${DRYDOCK_INCLUDE_cupti}
  ${DRYDOCK_INCLUDE_nccl})
target_link_libraries(drydock_cuda_toolkit INTERFACE ${DRYDOCK_LIBRARY_cublasLt} ${DRYDOCK_LIBRARY_cublas}
  ${DRYDOCK_LIBRARY_cupti} ${DRYDOCK_LIBRARY_nccl} ${DRYDOCK_LIBRARY_cudart_static} Threads::Threads
  ${CMAKE_DL_LIBS} rt)
set(DRYDOCK_CUDA_FLAGS --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra -Xptxas=-warn-spills)
# For what the plug-in links. Not by CMAKE_POSITION_INDEPENDENT_CODE, which gives programs -fPIE: a precompiled header
# serves one of the two only.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
set(DRYDOCK_CUDA_RPATH ${DRYDOCK_CUDA_ROOT}/lib ${DRYDOCK_CUDA_ROOT}/lib64)
set(DRYDOCK_CUDA_FOUND ON)
message(STATUS "CUDA half: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
