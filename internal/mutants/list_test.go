package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Every mutant applies, so a change of a line that a mutant edits fails here, and not in a later "make mutants".
func TestEveryMutantApplies(t *testing.T) {
	t.Chdir("../..")
	for _, m := range mutants {
		_, err := m.overlay(t.TempDir())
		assert.NoError(t, err, m.name)
	}
}
