# SPDX-License-Identifier: BSD-2-Clause
<#
.SYNOPSIS
    Does Insula run on this Windows? Writes a report that can be sent to its makers.
.DESCRIPTION
    Needs a folder with hello.exe, insulad.exe, insulactl.exe, insula-run.exe, insula-vmm.exe, insula-console.exe, insula-rng.exe, insula-blk.exe, insula-vsock.exe and
    insula-exec.exe (build/windows and build/windows/bin of `make windows`; with the folder guest of `make windows-guest` in it, commands in a Linux guest too), and one with the payloads (build/guests of `make payloads`). Nothing is installed
    or changed; a disk image of 8 MiB and a folder for insulad are made in the temporary folder and removed. The report has the version of Windows, the processor's name, whether the
    feature HypervisorPlatform is on, and what the programs printed: read it before you send it.
.EXAMPLE
    powershell -ExecutionPolicy Bypass -File windows-smoke.ps1 -Bin C:\insula\bin -Guests C:\insula\guests -Report report.txt
#>
param(
    [Parameter(Mandatory = $true)][string]$Bin,
    [Parameter(Mandatory = $true)][string]$Guests,
    [string]$Report = 'insula-report.txt'
)
$ErrorActionPreference = 'Continue'
$script:failed = 0
Set-Content -Path $Report -Value 'Insula on Windows: report of windows-smoke.ps1' -Encoding utf8

function Say([string]$text) {
    Write-Host $text
    Add-Content -Path $Report -Value $text -Encoding utf8
}

# Run a program for at most $seconds; its status, output and errors. 'timeout' as the status if it did not end.
function Invoke-Program([string]$file, [string[]]$arguments, [int]$seconds = 60, [scriptblock]$meanwhile = $null) {
    $out = [IO.Path]::GetTempFileName()
    $err = [IO.Path]::GetTempFileName()
    $in = [IO.Path]::GetTempFileName()
    $options = @{ FilePath = $file; NoNewWindow = $true; PassThru = $true; RedirectStandardInput = $in
        RedirectStandardOutput = $out; RedirectStandardError = $err }
    if ($arguments) { $options.ArgumentList = $arguments }
    $p = Start-Process @options
    $null = $p.Handle # or its exit code would not be kept
    if ($meanwhile) { & $meanwhile }
    $status = 'timeout'
    if ($p.WaitForExit($seconds * 1000)) { $status = $p.ExitCode } else { $p.Kill() }
    $result = [pscustomobject]@{ Status = $status; Out = (Get-Content -Raw $out); Err = (Get-Content -Raw $err) }
    Remove-Item $out, $err, $in -ErrorAction SilentlyContinue
    return $result
}

function Test-Case([string]$name, [int]$status, $result, [string]$pattern = '') {
    $good = "$($result.Status)" -eq "$status" -and $result.Out -notmatch '(?m)^not ok ' -and ($pattern -eq '' -or "$($result.Out)$($result.Err)" -match $pattern)
    if ($good) { Say "ok $name" } else { $script:failed++; Say "not ok $name - status $($result.Status), expected $status" }
    if (-not $good -or $result.Err) {
        foreach ($line in (("$($result.Err)`n$($result.Out)" -split "`r?`n") | Where-Object { $_ } | Select-Object -First 25)) { Say "    $line" }
    }
}

Say "date      $(Get-Date -Format o)"
Say "windows   $([Environment]::OSVersion.VersionString), $((Get-ItemProperty 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion').EditionID)"
Say "processor $((Get-CimInstance Win32_Processor | Select-Object -First 1).Name)"
Say "present   hypervisor: $((Get-CimInstance Win32_ComputerSystem).HypervisorPresent)"
try { Say "feature   HypervisorPlatform: $((Get-WindowsOptionalFeature -Online -FeatureName HypervisorPlatform -ErrorAction Stop).State)" }
catch { Say 'feature   HypervisorPlatform: not known (an administrator may ask)' }
Say "dll       WinHvPlatform.dll: $((Get-Item "$env:SystemRoot\System32\WinHvPlatform.dll" -ErrorAction SilentlyContinue).VersionInfo.FileVersion)"

Test-Case 'hello.exe: the platform alone' 0 (Invoke-Program "$Bin\hello.exe" @()) 'Hello from a virtual machine'

$run = "$Bin\insula-run.exe"
$disk = Join-Path ([IO.Path]::GetTempPath()) 'insula-smoke.img'
[IO.File]::WriteAllBytes($disk, (New-Object byte[] (8MB)))
function Invoke-Vm([string]$payload, [string[]]$more = @(), [scriptblock]$meanwhile = $null) {
    return Invoke-Program $run (@('--kernel', "`"$Guests\$payload.elf`"") + $more) 90 $meanwhile
}
Test-Case 'hello: contained, and it runs' 42 (Invoke-Vm 'hello') 'Hello from a payload'
Test-Case 'board, 1 processor' 0 (Invoke-Vm 'board')
Test-Case 'board, 4 processors' 0 (Invoke-Vm 'board' @('--cpus', '4'))
Test-Case 'memory, 3100 MiB' 0 (Invoke-Vm 'mem' @('--mem', '3100M'))
Test-Case 'uart' 0 (Invoke-Vm 'uart')
Test-Case 'rng' 0 (Invoke-Vm 'rng')
Test-Case 'disk' 0 (Invoke-Vm 'blk' @('--disk', "path=`"$disk`""))
Test-Case 'a hostile driver' 0 (Invoke-Vm 'evilblk' @('--disk', "path=`"$disk`""))
Test-Case 'triple fault' 121 (Invoke-Vm 'tfault')
Test-Case 'power off' 0 (Invoke-Vm 'poweroff')
Test-Case 'timeout' 124 (Invoke-Vm 'spin' @('--timeout', '3'))
Test-Case 'a helper that dies is replaced' 0 (Invoke-Vm 'blkloop' @('--append', 'seconds=8', '--disk', "path=`"$disk`"") {
        Start-Sleep -Seconds 4
        Get-Process insula-blk -ErrorAction SilentlyContinue | Stop-Process -Force
    }) 'restarted, carries on'
Test-Case 'disk, unbuffered' 0 (Invoke-Vm 'blk' @('--disk', "path=`"$disk`",direct"))
Remove-Item $disk -ErrorAction SilentlyContinue

# The client's conversation with a port of the guest, which echoes; what came back. The end of the VM, if nothing else, ends a read.
function Use-Vsock([int]$port) {
    $pipe = New-Object IO.Pipes.NamedPipeClientStream('.', 'insula-smoke', [IO.Pipes.PipeDirection]::InOut,
        [IO.Pipes.PipeOptions]::None, [Security.Principal.TokenImpersonationLevel]::Anonymous)
    $buffer = New-Object byte[] 100
    $said = ''
    try {
        $pipe.Connect(20000)
        foreach ($text in @("CONNECT $port`n", 'hello')) {
            $bytes = [Text.Encoding]::ASCII.GetBytes($text)
            $pipe.Write($bytes, 0, $bytes.Length)
            $n = $pipe.Read($buffer, 0, $buffer.Length)
            $said += [Text.Encoding]::ASCII.GetString($buffer, 0, $n)
        }
    }
    catch { $said += "($_)" }
    finally { $pipe.Dispose() }
    return $said
}
$script:said = ''
Test-Case 'vsock: the guest serves, and is told to end' 0 (Invoke-Vm 'vsockloop' @('--vsock', 'path=\\.\pipe\insula-smoke', '--timeout', '60') {
        $script:said = Use-Vsock 9
        $null = Use-Vsock 1
    }) 'connections 1'
if ($script:said -match '^OK \d+\nhello$') { Say 'ok vsock: an echo' } else { $script:failed++; Say "not ok vsock: an echo - $script:said" }
if (Test-Path "$Bin\guest\vmlinuz") {
    Test-Case 'Linux: a command, its status' 7 (Invoke-Program $run @('-v', '--mem', '512M', '--', 'sh', '-c', '"uname -r; exit 7"') 120) '(?m)^\d+\.\d+\.'
    Test-Case 'Linux: a program that is missing' 127 (Invoke-Program $run @('--mem', '512M', '--', 'nope') 120) 'nope: command not found'
}
else { Say 'skip Linux: no folder guest beside insula-run.exe' }
# The daemon and its client, with a state directory and a pipe of their own.
$state = Join-Path ([IO.Path]::GetTempPath()) 'insula-smoke'
$null = New-Item -ItemType Directory -Force $state
$conf = Join-Path $state 'insulad.json'
[IO.File]::WriteAllText($conf, (ConvertTo-Json @{ socket = '\\.\pipe\insula-smoke-daemon'; state_dir = (Join-Path $state 'state') }))
$daemon = Start-Process "$Bin\insulad.exe" @('--config', "`"$conf`"") -PassThru -NoNewWindow -RedirectStandardError (Join-Path $state 'log')
Start-Sleep -Seconds 3
function Invoke-Ctl([string[]]$arguments) { return Invoke-Program "$Bin\insulactl.exe" (@('--socket', '\\.\pipe\insula-smoke-daemon') + $arguments) 120 }
Test-Case 'insulad answers' 0 (Invoke-Ctl @('info')) '"version"'
Test-Case 'insulactl run: the console, the status' 42 (Invoke-Ctl @('run', '--kernel', "`"$Guests\hello.elf`"", '--mem', '64M')) 'Hello from a payload'
Test-Case 'insulactl create' 0 (Invoke-Ctl @('create', '--name', 'smoke', '--kernel', "`"$Guests\spin.elf`"", '--mem', '64M'))
Test-Case 'insulactl start' 0 (Invoke-Ctl @('start', 'smoke')) '"running"'
Test-Case 'insulactl pause' 0 (Invoke-Ctl @('pause', 'smoke')) '"paused"'
Test-Case 'insulactl kill' 0 (Invoke-Ctl @('kill', 'smoke')) '"killed"'
Test-Case 'insulactl rm' 0 (Invoke-Ctl @('rm', 'smoke'))
if (Test-Path "$Bin\guest\vmlinuz") {
    Test-Case 'insulactl create: Linux' 0 (Invoke-Ctl @('create', '--name', 'linux', '--mem', '512M'))
    Test-Case 'insulactl start: Linux' 0 (Invoke-Ctl @('start', 'linux')) '"running"'
    Test-Case 'insulactl exec' 7 (Invoke-Ctl @('exec', 'linux', '--', 'sh', '-c', '"uname -r; exit 7"')) '(?m)^\d+\.\d+\.'
    Test-Case 'insulactl stop: in order' 0 (Invoke-Ctl @('stop', '-t', '60', 'linux')) '"clean"'
}
Stop-Process $daemon -Force
Start-Sleep -Seconds 2
Get-Content (Join-Path $state 'log') -ErrorAction SilentlyContinue | Select-Object -First 25 | ForEach-Object { Say "    $_" }
Remove-Item -Recurse -Force $state -ErrorAction SilentlyContinue
$left = @(Get-Process insula-run, insula-vmm, insula-blk, insula-rng, insula-console, insula-vsock, insula-exec -ErrorAction SilentlyContinue)
if ($left.Count) { $script:failed++; Say "not ok nothing is left - $($left.Count) processes" } else { Say 'ok nothing is left' }
Say "failed    $script:failed"
exit [int]($script:failed -gt 0)
