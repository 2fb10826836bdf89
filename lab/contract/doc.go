// Package contract holds tests only. They compare what the adapter (clerkapi) sends
// and what the fake of Clerk (clerkinvitetest) answers with Clerk's own OpenAPI
// descriptions: else both would be one author's idea of Clerk, and agree in his
// mistakes.
//
// The descriptions are not part of this repository. CLERKINVITE_OPENAPI names the
// folder that has them: a clone of github.com/clerk/openapi-specs, or any folder with
// bapi-2025-04-10.yml, bapi-2026-05-12.yml and webhooks-2025-04-15.yml. Without it the
// tests are skipped; they fail if CLERKINVITE_REQUIRE names openapi.
//
// What the descriptions say wrongly, or do not say, stands in exceptions_test.go. The
// fake's faults that stand for proxies and broken networks are no answers of Clerk's
// and are not compared.
package contract
