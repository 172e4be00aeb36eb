# Not a toolchain: the one file that an environment variable can hand to every
# cmake run of a cargo build (see .cargo/config.toml). It only leaves a note for
# the project named "grpc", which is the gRPC C core in grpcio-sys; BoringSSL
# and any other project read it and go on as before. It sets no compiler and no
# CMAKE_SYSTEM_NAME, so that nothing is taken for a cross build.
set(CMAKE_PROJECT_grpc_INCLUDE "${CMAKE_CURRENT_LIST_DIR}/grpc-core.cmake")
