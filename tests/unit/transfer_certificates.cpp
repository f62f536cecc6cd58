// Certificates that live as long as the test process: a CA and one node, for localhost and the loopback
// addresses.
#include "transfer_certificates.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#ifdef TERSOR_TEST_TLS
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#endif

namespace tersor::transfer::testing {

#ifdef TERSOR_TEST_TLS
namespace {

using key = std::unique_ptr<::EVP_PKEY, decltype(&::EVP_PKEY_free)>;
using certificate = std::unique_ptr<::X509, decltype(&::X509_free)>;

key make_key() {
  return {::EVP_EC_gen("P-256"), &::EVP_PKEY_free};
}

void add_extension(::X509* to, ::X509* issuer, int what, const char* value) {
  ::X509V3_CTX context = {};
  ::X509V3_set_ctx(&context, issuer, to, nullptr, nullptr, 0);
  ::X509_EXTENSION* const e = ::X509V3_EXT_conf_nid(nullptr, &context, what, value);
  ::X509_add_ext(to, e, -1);
  ::X509_EXTENSION_free(e);
}

certificate make_certificate(const char* name, ::EVP_PKEY* of, ::X509* issuer, ::EVP_PKEY* by, long seconds) {
  certificate made(::X509_new(), &::X509_free);
  ::X509* const c = made.get();
  ::X509_set_version(c, X509_VERSION_3);
  static long serial = 1;
  ::ASN1_INTEGER_set(::X509_get_serialNumber(c), serial++);
  ::X509_gmtime_adj(::X509_getm_notBefore(c), -86'400L * 2);
  ::X509_gmtime_adj(::X509_getm_notAfter(c), seconds);
  ::X509_set_pubkey(c, of);
  ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(c), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  const bool is_ca = issuer == nullptr;
  ::X509* const signer = is_ca ? c : issuer;
  ::X509_set_issuer_name(c, ::X509_get_subject_name(signer));
  add_extension(c, signer, NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
  if (!is_ca) add_extension(c, signer, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1");
  ::X509_sign(c, by, ::EVP_sha256());
  return made;
}

template <class Write>
std::string save(const std::filesystem::path& path, Write write) {
  std::FILE* const file = std::fopen(path.c_str(), "w");
  write(file);
  (void)std::fclose(file);
  return path.string();
}

}  // namespace

test_authority::test_authority() {
  std::string name = (std::filesystem::temp_directory_path() / "tersor-tls-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) std::abort();
  folder_ = name;
  const key ca_key = make_key(), node_key = make_key();
  constexpr long kHour = 3'600;
  const certificate ca = make_certificate("test CA", ca_key.get(), nullptr, ca_key.get(), kHour);
  const certificate node = make_certificate("node", node_key.get(), ca.get(), ca_key.get(), kHour);
  const certificate old = make_certificate("old node", node_key.get(), ca.get(), ca_key.get(), -kHour);
  const auto folder = std::filesystem::path(folder_);
  files_.certificate_file = save(folder / "node.pem", [&](auto* f) { ::PEM_write_X509(f, node.get()); });
  expired_ = save(folder / "old.pem", [&](auto* f) { ::PEM_write_X509(f, old.get()); });
  files_.ca_file = save(folder / "ca.pem", [&](auto* f) { ::PEM_write_X509(f, ca.get()); });
  files_.key_file = save(folder / "node.key", [&](auto* f) {
    ::PEM_write_PrivateKey(f, node_key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
}

test_authority::~test_authority() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

#else

test_authority::test_authority() = default;
test_authority::~test_authority() = default;

#endif

const tls_files& test_certificates() {
  static const test_authority kAuthority;
  return kAuthority.files();
}

}  // namespace tersor::transfer::testing
