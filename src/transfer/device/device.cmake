# Links of GPUs. Planning and cost build everywhere; the rest where CUDA is.
set(link_sources device/link_cost.cpp device/parts.cpp)
if(TERSOR_HAVE_CUDA)
  list(APPEND link_sources device/device_link.cpp device/host_link.cpp device/shared.cpp device/side.cpp)
  set(link_libraries CUDA::cudart_static)
else()
  list(APPEND link_sources device/link_none.cpp)
  # Without CUDA nothing reads the fields that the classes keep for it.
  set_source_files_properties(device/link_none.cpp PROPERTIES COMPILE_OPTIONS
    "$<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-unused-private-field>")
  set(link_libraries "")
endif()
tersor_room(transfer_link SOURCES ${link_sources} DEPENDS tersor_core PRIVATE ${link_libraries})
