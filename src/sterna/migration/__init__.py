"""The five phases: cores, their driver, cookies and transports."""
