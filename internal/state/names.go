package state

// ScriptHashes are the SHA-1 hashes by which Redis knows the scripts of this
// package, by name: for whoever looks at the wire or at Redis' slow log.
func ScriptHashes() map[string]string {
	return map[string]string{
		"acquire":   acquireScript.Hash(),
		"raise":     raiseScript.Hash(),
		"aim":       aimScript.Hash(),
		"members":   membersScript.Hash(),
		"abandoned": abandonedScript.Hash(),
		"forget":    forgetScript.Hash(),
		"renew":     renewScript.Hash(),
		"compare":   compareScript.Hash(),
		"load":      loadScript.Hash(),
		"due":       dueScript.Hash(),
		"apply":     applyScript.Hash(),
		"read":      readScript.Hash(),
	}
}
