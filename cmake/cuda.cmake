# The CUDA half: looks for a compiler and libraries and sets DRYDOCK_CUDA_FOUND. A machine without them builds the rest.
# Looked at, in this order: CMAKE_CUDA_COMPILER, $CUDACXX, nvcc on PATH, what scripts/cuda_toolkit puts into build/.
set(DRYDOCK_CUDA_FOUND OFF)
if(NOT DRYDOCK_CUDA)
  return()
endif()

set(DRYDOCK_CUDA_TOOLKIT ${PROJECT_SOURCE_DIR}/build/cuda-toolkit CACHE PATH "Folder that scripts/cuda_toolkit was given")
find_program(DRYDOCK_NVCC nvcc)

# Sets `missing` to what keeps the toolkit of `nvcc` from being used, and the paths of its libraries and headers.
function(drydock_look_at_toolkit nvcc)
  set(missing "" PARENT_SCOPE)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE text ERROR_QUIET)
  if(NOT text MATCHES "release ([0-9]+)\\.([0-9]+)" OR CMAKE_MATCH_1 LESS 13)
    set(missing " CUDA 13" PARENT_SCOPE)
    return()
  endif()
  get_filename_component(root ${nvcc} REALPATH)
  get_filename_component(root ${root}/../.. ABSOLUTE)
  set(DRYDOCK_CUDA_ROOT ${root} PARENT_SCOPE)
  set(lacking "")
  foreach(library cudart_static cublasLt cublas cupti nccl)
    unset(found)
    find_library(found ${library} PATHS ${root} PATH_SUFFIXES lib lib64 extras/CUPTI/lib64 targets/x86_64-linux/lib NO_DEFAULT_PATH NO_CACHE)
    if(NOT found AND library STREQUAL nccl)  # a package of its own, in the system's folders
      find_library(found nccl NO_CACHE)
    endif()
    if(NOT found)
      string(APPEND lacking " ${library}")
    endif()
    set(DRYDOCK_LIBRARY_${library} ${found} PARENT_SCOPE)
  endforeach()
  find_path(cupti cupti.h PATHS ${root} PATH_SUFFIXES include extras/CUPTI/include NO_DEFAULT_PATH NO_CACHE)
  find_path(nccl nccl.h PATHS ${root} PATH_SUFFIXES include NO_CACHE)
  set(DRYDOCK_INCLUDE_cupti ${cupti} PARENT_SCOPE)
  set(DRYDOCK_INCLUDE_nccl ${nccl} PARENT_SCOPE)
  set(missing "${lacking}" PARENT_SCOPE)
endfunction()

set(reasons "")
foreach(nvcc ${CMAKE_CUDA_COMPILER} $ENV{CUDACXX} ${DRYDOCK_NVCC} ${DRYDOCK_CUDA_TOOLKIT}/nvidia/cu13/bin/nvcc)
  if(EXISTS ${nvcc})
    drydock_look_at_toolkit(${nvcc})
    if(NOT missing)
      set(CMAKE_CUDA_COMPILER ${nvcc})
      set(DRYDOCK_CUDA_FOUND ON)
      break()
    endif()
    string(APPEND reasons "; ${nvcc} lacks${missing}")
  endif()
endforeach()
if(NOT DRYDOCK_CUDA_FOUND)
  message(STATUS "CUDA half: skipped, no toolkit${reasons}; scripts/cuda_toolkit puts one into build/cuda-toolkit")
  return()
endif()

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
message(STATUS "CUDA half: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
