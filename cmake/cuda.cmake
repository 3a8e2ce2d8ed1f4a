# The CUDA backend without a GPU: kernels (.cu) built by the C++ compiler against the emulator, and checked by nvcc.
#
#   CALD_CUDA_INCLUDE   where cuda_runtime_api.h is; found in the toolkit's usual places. Without it there is no emulation
#                       and CALD_EMULATION_FOUND is false.
#   CALD_NVCC           nvcc, where there is one.
#   CALD_CUDA_ARCHITECTURES   what the backend is compiled for (80;90); later devices compile the last one's PTX anew.
#
#   cald_cuda_backend(name)                                CUDA's launches for programs: the kernels with CALD_CUDA=ON,
#                                                          else refusals
#   cald_emulation                                         the emulator and its stand-ins for the runtime and cuBLASLt
#   cald_emulated_library(name SOURCES a.cu... [LINK ...] [INSTRUMENTED])
#   cald_emulated_options(target [INSTRUMENTED])           for a target with kernels in .cpp files
#   cald_nvcc_check(name SOURCES a.cu... [ARCHITECTURES 80 90])
#
# INSTRUMENTED finds data races and counts memory traffic: it compiles with -fsanitize=thread, whose callbacks the
# emulator answers itself, and so cannot be joined with CALD_SANITIZE; CALD_EMULATION_INSTRUMENTS says whether it can.
get_filename_component(CALD_CUDA_ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

find_path(CALD_CUDA_INCLUDE cuda_runtime_api.h
  HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES include
  DOC "folder of the CUDA headers")
find_program(CALD_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin DOC "nvcc")

set(CALD_EMULATION_FOUND OFF)
set(CALD_EMULATION_INSTRUMENTS OFF)
if(CALD_CUDA_INCLUDE AND NOT CALD_SANITIZE MATCHES "thread")
  set(CALD_EMULATION_FOUND ON)
  if(NOT CALD_SANITIZE)
    set(CALD_EMULATION_INSTRUMENTS ON)
  endif()

  file(GLOB emulation_sources CONFIGURE_DEPENDS ${CALD_CUDA_ROOT}/kernels/cuda/emulation/*.cpp)
  if(NOT EXISTS ${CALD_CUDA_INCLUDE}/cublasLt.h)
    list(FILTER emulation_sources EXCLUDE REGEX "/cublaslt.cpp$")
  endif()
  add_library(cald_emulation STATIC ${emulation_sources})
  target_include_directories(cald_emulation PUBLIC ${CALD_CUDA_ROOT})
  target_include_directories(cald_emulation SYSTEM PUBLIC ${CALD_CUDA_INCLUDE})
  target_compile_definitions(cald_emulation PUBLIC NVTX_DISABLE)
  target_link_libraries(cald_emulation PUBLIC ${CMAKE_DL_LIBS})
  # A sanitizer must not watch the code that changes stacks under it.
  foreach(file context scheduler observe)
    set_source_files_properties(${CALD_CUDA_ROOT}/kernels/cuda/emulation/${file}.cpp
      PROPERTIES COMPILE_OPTIONS "-fno-sanitize=all")
  endforeach()
endif()

function(cald_cuda_backend name)
  if(NOT CALD_CUDA)
    add_library(${name} OBJECT ${CALD_CUDA_ROOT}/kernels/cuda/absent.cpp)
    target_include_directories(${name} PUBLIC ${CALD_CUDA_ROOT})
    return()
  endif()
  if(NOT CALD_NVCC)
    message(FATAL_ERROR "CALD_CUDA=ON needs nvcc; say where with -DCALD_NVCC=/path/to/nvcc")
  endif()
  get_filename_component(bin ${CALD_NVCC} DIRECTORY)
  get_filename_component(CUDAToolkit_ROOT ${bin} DIRECTORY)
  find_package(CUDAToolkit REQUIRED)
  file(GLOB kernels CONFIGURE_DEPENDS ${CALD_CUDA_ROOT}/kernels/cuda/*.cu)
  set(CALD_CUDA_ARCHITECTURES 80 90 CACHE STRING "compute capabilities that the CUDA backend is compiled for")
  list(GET CALD_CUDA_ARCHITECTURES -1 last)
  cald_nvcc_objects(objects ${name} SOURCES ${kernels} ARCHITECTURES ${CALD_CUDA_ARCHITECTURES}
    FLAGS -gencode arch=compute_${last},code=compute_${last})
  add_library(${name} INTERFACE)
  target_sources(${name} INTERFACE ${objects})
  add_custom_target(${name}_objects DEPENDS ${objects})
  add_dependencies(${name} ${name}_objects)
  target_link_libraries(${name} INTERFACE CUDA::cudart_static CUDA::cublasLt)
endfunction()

function(cald_emulated_options target)
  cmake_parse_arguments(E "INSTRUMENTED" "" "" ${ARGN})
  # Version 4: addr2line 2.40 can name the wrong file of version 5.
  target_compile_options(${target} PRIVATE -Wno-unknown-pragmas -gdwarf-4)
  if(E_INSTRUMENTED)
    # -O1 keeps most loads and stores of the source; lines come from the debug information.
    target_compile_options(${target} PRIVATE -fsanitize=thread -O1 -Wno-tsan)
  endif()
  target_link_libraries(${target} PRIVATE cald_emulation)
endfunction()

function(cald_emulated_library name)
  cmake_parse_arguments(E "INSTRUMENTED" "" "SOURCES;LINK" ${ARGN})
  set(wrappers)
  foreach(source ${E_SOURCES})
    get_filename_component(path ${source} ABSOLUTE)
    get_filename_component(stem ${source} NAME_WE)
    # Under another name, so that the same .cu can be nvcc's in another target.
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/${name}/${stem}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${path}\"\n")
    list(APPEND wrappers ${wrapper})
  endforeach()
  add_library(${name} OBJECT ${wrappers})  # objects: the engine, linked before or after, needs all of them
  target_link_libraries(${name} PUBLIC ${E_LINK} cald_emulation)
  if(E_INSTRUMENTED)
    cald_emulated_options(${name} INSTRUMENTED)
  else()
    cald_emulated_options(${name})
  endif()
endfunction()

# Compiles the sources for each architecture (80 and 90 unless told otherwise); `out` gets the objects. By commands, not
# by CMake's CUDA language: version 3.25 does not know that nvcc 13 has C++20. -lineinfo lets Nsight Compute show the
# source beside the instructions.
function(cald_nvcc_objects out folder)
  cmake_parse_arguments(N "" "" "SOURCES;ARCHITECTURES;FLAGS" ${ARGN})
  if(NOT N_ARCHITECTURES)
    set(N_ARCHITECTURES 80 90)
  endif()
  set(codes)
  foreach(architecture ${N_ARCHITECTURES})
    list(APPEND codes -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  set(objects)
  foreach(source ${N_SOURCES})
    get_filename_component(path ${source} ABSOLUTE)
    get_filename_component(stem ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${folder}/${stem}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/${folder}
      COMMAND ${CALD_NVCC} -std=c++20 -O3 -lineinfo -ccbin ${CMAKE_CXX_COMPILER} ${codes} -I${CALD_CUDA_ROOT}
              ${N_FLAGS} -MD -MF ${object}.d -c ${path} -o ${object}
      DEPENDS ${path} DEPFILE ${object}.d VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

# A target that compiles the sources with nvcc, for nothing but the check: spilled registers and local memory are errors.
# Its objects are ${name}_objects.
function(cald_nvcc_check name)
  if(NOT CALD_NVCC)
    return()
  endif()
  cald_nvcc_objects(objects ${name} ${ARGN} FLAGS -Xptxas -warn-spills,-warn-lmem-usage,-Werror)
  add_custom_target(${name} DEPENDS ${objects})
  set(${name}_objects ${objects} PARENT_SCOPE)
endfunction()
