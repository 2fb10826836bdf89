// Package contract has only tests. They compare the requests of the adapter (clerkapi)
// and the responses of the fake Clerk (clerkinvitetest) with Clerk's own OpenAPI
// descriptions. Otherwise the adapter and the fake could agree on the same mistake.
//
// The descriptions are not part of this repository. CLERKINVITE_OPENAPI names a folder
// with them: a clone of github.com/clerk/openapi-specs, or any folder with
// bapi-2025-04-10.yml, bapi-2026-05-12.yml and webhooks-2025-04-15.yml. Without it the
// tests are skipped, or fail if CLERKINVITE_REQUIRE names openapi.
//
// exceptions_test.go lists where the descriptions are wrong or silent. The fake's faults
// that imitate proxies and broken networks are not compared.
package contract
