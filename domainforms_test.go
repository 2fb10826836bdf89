//go:build !race

// The race detector makes this test ten times as slow, and nothing is concurrent here.

package clerkinvite

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The form of a domain does not depend on the Go toolchain. Each has its own Unicode tables, and
// those of Go 1.26 and 1.27 differ in thousands of code points. If this test fails with a new
// toolchain, compare the forms with those of the old one, and add what differs to unstableDomain.
func TestDomainFormsArePinned(t *testing.T) {
	t.Parallel()
	forms := sha256.New()
	for r := rune(0x80); r < 0xe1000; r++ {
		if r == 0x40000 {
			r = 0xe0000 // the planes between have no characters
		}
		c := string(r)
		for _, label := range []string{"a" + c + "b", "\u05d0" + c + "\u05d0", "\u0628\u200c" + c, c + "\u0301"} {
			if domain, ok := normalizeDomain(label + ".example"); ok {
				fmt.Fprintln(forms, label, domain)
			}
		}
	}
	assert.Equal(t, pinnedForms, fmt.Sprintf("%x", forms.Sum(nil)))
}

const pinnedForms = "11730f30e089d8d5431d9866c22864761b239e2d124ca464c13b6a3a41711269"
