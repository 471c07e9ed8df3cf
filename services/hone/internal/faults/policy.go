package faults

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/honeloop/hone/services/router"
)

// Rules of the policy of a run that are not in the default policy.
const (
	ruleHeld    = "waits-for-others"
	ruleLimited = "few-a-day"
	heldUntil   = 3
	limitADay   = 1
	partitions  = 12 // of hone.cases
)

//go:embed policy.yaml
var ownRules string

// policy is the default policy, with a rule that holds signals and one that takes
// few before all others.
func policy() (string, error) {
	base, err := router.DefaultPolicy()
	if err != nil {
		return "", err
	}
	before, after, found := strings.Cut(base.Source(), "\nrules:\n")
	text := before + "\nrules:\n" + ownRules + after
	if _, err := router.CompilePolicy("policy.yaml", []byte(text)); err != nil || !found {
		return "", fmt.Errorf("make the policy of the run: %w", err)
	}
	return text, nil
}
