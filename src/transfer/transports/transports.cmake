# Included by the room: what the transports consist of, and the optional libraries that were found.
set(TERSOR_TRANSPORT_SOURCES
  transports/endpoint.cpp transports/socket.cpp transports/tcp.cpp transports/transports.cpp)
set(TERSOR_TRANSPORT_LIBRARIES "")
set(TERSOR_TRANSPORT_DEFINITIONS "")

find_path(TERSOR_URING_INCLUDE liburing.h)
find_library(TERSOR_URING_LIBRARY uring)
if(TERSOR_URING_INCLUDE AND TERSOR_URING_LIBRARY)
  set(TERSOR_HAVE_URING ON CACHE INTERNAL "")
  list(APPEND TERSOR_TRANSPORT_SOURCES transports/tcp_uring.cpp)
  list(APPEND TERSOR_TRANSPORT_LIBRARIES uring)
else()
  set(TERSOR_HAVE_URING OFF CACHE INTERNAL "")
  list(APPEND TERSOR_TRANSPORT_SOURCES transports/tcp_uring_none.cpp)
endif()

# Headers only: the library is opened at run time.
find_path(TERSOR_UCX_INCLUDE ucp/api/ucp.h)
if(TERSOR_UCX_INCLUDE)
  list(APPEND TERSOR_TRANSPORT_SOURCES transports/ucx.cpp transports/ucx_api.cpp transports/ucx_channel.cpp)
else()
  list(APPEND TERSOR_TRANSPORT_SOURCES transports/ucx_none.cpp)
endif()
