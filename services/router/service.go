package router

import _ "embed"

//go:embed default_policy.yaml
var defaultPolicyYAML []byte

// DefaultPolicy is the policy that holds where no other is configured.
func DefaultPolicy() (*Policy, error) { return CompilePolicy("default_policy.yaml", defaultPolicyYAML) }
